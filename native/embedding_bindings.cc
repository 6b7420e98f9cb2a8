// Converts the tables and features of a call, releases the GIL and calls the kernels.
//
// Shapes and ranges are checked in src/shortlist/embeddings/kernels.py, the only
// caller.
#include "embedding_bindings.h"

#include <nanobind/stl/string.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "array_bindings.h"
#include "bag_lookup.h"
#include "row_kernels.h"
#include "row_update.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace shortlist {
namespace {

double number(nb::handle value) { return nb::cast<double>(value); }

Rows to_rows(nb::handle array, bool writable, Arrays& arrays) {
  const Py_buffer& view = arrays.get(array, writable);
  const RowType type = view.itemsize == 4      ? RowType::kFloat32
                       : view.format[0] == 'e' ? RowType::kFloat16
                                               : RowType::kBfloat16;
  return {view.buf, static_cast<std::size_t>(view.shape[0]),
          static_cast<std::size_t>(view.shape[1]), type};
}

// From the first five items of a tuple: table, ids, offsets, weights, combiner.
Bags to_bags(const nb::tuple& feature, Arrays& arrays) {
  Bags bags = {};
  bags.table = nb::cast<std::size_t>(feature[0]);
  const Py_buffer& ids = arrays.get(feature[1]);
  bags.ids = ids.buf;
  bags.wide_ids = ids.itemsize == 8;
  bags.num_ids = static_cast<std::size_t>(ids.len / ids.itemsize);
  bags.num_bags = static_cast<std::size_t>(ids.shape[0]);
  bags.length = ids.ndim == 2 ? static_cast<std::size_t>(ids.shape[1]) : 1;
  if (!feature[2].is_none()) {
    const Py_buffer& offsets = arrays.get(feature[2]);
    bags.offsets = static_cast<const std::int64_t*>(offsets.buf);
    bags.num_bags = static_cast<std::size_t>(offsets.shape[0]) - 1;
  }
  bags.weights = arrays.values<const float>(feature[3]);
  bags.combiner = static_cast<Combiner>(nb::cast<int>(feature[4]));
  return bags;
}

// From the kind and the numbers of a rule, in the order of the fields of Rule.
Rule to_rule(int kind, const nb::tuple& numbers) {
  Rule rule = {};
  rule.kind = static_cast<RuleKind>(kind);
  double* const fields[] = {
      &rule.epsilon, &rule.beta_1,  &rule.beta_2,       &rule.learning_rate_power,
      &rule.l1,      &rule.l2_ftrl, &rule.l2_shrinkage, &rule.beta,
      &rule.clip,    &rule.l2,      &rule.weight_decay};
  std::size_t i = 0;
  for (double* field : fields) {
    const nb::handle value = numbers[i++];
    *field = value.is_none() ? std::numeric_limits<double>::infinity() : number(value);
  }
  return rule;
}

nb::object lookup_features(const nb::list& tables, const nb::list& features,
                           std::size_t threads, const std::string& instruction_set) {
  const RowKernels& kernels = row_kernels(instruction_set);
  Arrays arrays;
  std::vector<Rows> rows;
  for (nb::handle table : tables) rows.push_back(to_rows(table, false, arrays));
  std::vector<LookedUp> looked_up;
  for (nb::handle item : features) {
    const auto feature = nb::borrow<nb::tuple>(item);
    const Bags bags = to_bags(feature, arrays);
    looked_up.push_back({bags, arrays.values<float>(feature[5], true)});
  }
  std::optional<OutOfRange> first;
  {
    nb::gil_scoped_release release;
    first = lookup(kernels, rows, looked_up, threads);
  }
  if (!first) return nb::none();
  return nb::make_tuple(first->feature, first->id);
}

void update_tables(const nb::list& tables, const nb::list& features,
                   std::size_t threads, const std::string& instruction_set) {
  const RowKernels& kernels = row_kernels(instruction_set);
  Arrays arrays;
  std::vector<UpdatedTable> updated;
  for (nb::handle item : tables) {
    const auto table = nb::borrow<nb::tuple>(item);
    UpdatedTable to = {};
    to.index = nb::cast<std::size_t>(table[0]);
    to.rows = to_rows(table[1], true, arrays);
    to.rule = to_rule(nb::cast<int>(table[2]), nb::borrow<nb::tuple>(table[3]));
    to.slots[0] = arrays.values<float>(table[4], true);
    to.slots[1] = arrays.values<float>(table[5], true);
    to.last_step = arrays.values<std::int32_t>(table[6], true);
    to.moves = arrays.values<const double>(table[7]);
    to.step = nb::cast<std::int64_t>(table[8]);
    to.seed = nb::cast<std::uint32_t>(table[9]);
    to.learning_rate = number(table[10]);
    to.adam_rate = number(table[11]);
    updated.push_back(to);
  }
  std::vector<Backpropagated> gradients;
  for (nb::handle item : features) {
    const auto feature = nb::borrow<nb::tuple>(item);
    const Bags bags = to_bags(feature, arrays);
    gradients.push_back({bags, arrays.values<const float>(feature[5]),
                         static_cast<float>(number(feature[6]))});
  }
  nb::gil_scoped_release release;
  update(kernels, updated, gradients, threads);
}

bool offsets_rise(nb::handle offsets) {
  Arrays arrays;
  const Py_buffer& view = arrays.get(offsets);
  const auto* values = static_cast<const std::int64_t*>(view.buf);
  bool rise = true;
  for (Py_ssize_t i = 1; i < view.shape[0]; ++i) rise &= values[i - 1] <= values[i];
  return rise;
}

}  // namespace

void bind_embeddings(nb::module_& m) {
  m.def("lookup", &lookup_features, "tables"_a, "features"_a, "threads"_a,
        "instruction_set"_a = "",
        "Fills the vectors of every feature; the first (feature, id) out of range.");
  m.def("update", &update_tables, "tables"_a, "features"_a, "threads"_a,
        "instruction_set"_a = "", "Moves the touched rows of every table once.");
  m.def("offsets_rise", &offsets_rise, "offsets"_a,
        "Whether no int64 offset is less than the one before.");
}

}  // namespace shortlist
