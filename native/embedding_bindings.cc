// Converts the tables and features of a call, releases the GIL and calls the kernels.
//
// src/shortlist/embeddings/host/kernels.py, the only caller, checks shapes and ranges
// and says what is wrong. Here a wrong call raises ValueError: types and sizes are
// compared once per array, offsets while the kernels read them.
#include "embedding_bindings.h"

#include <nanobind/stl/string.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iterator>
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

void require(bool holds, const char* what) {
  if (!holds) throw nb::value_error(what);
}

std::size_t count_of(const Py_buffer& view) {
  std::size_t count = 1;
  for (int d = 0; d < view.ndim; ++d) count *= static_cast<std::size_t>(view.shape[d]);
  return count;
}

// Whether the numbers of an array are of one of the types in `codes`, in the order of
// bytes of this machine.
bool is_type(const Py_buffer& view, const char* codes, Py_ssize_t itemsize) {
  return view.itemsize == itemsize && view.format && view.format[0] &&
         !view.format[1] && std::strchr(codes, view.format[0]);
}

// The `count` numbers of an array.
template <typename T>
T* numbers_of(nb::handle array, const char* codes, std::size_t count, bool writable,
              Arrays& arrays, const char* what) {
  const Py_buffer& view = arrays.get(array, writable);
  require(is_type(view, codes, sizeof(T)) && count_of(view) == count, what);
  return static_cast<T*>(view.buf);
}

nb::tuple to_tuple(nb::handle item, std::size_t size) {
  require(nb::isinstance<nb::tuple>(item), "A table or feature must be a tuple.");
  const auto tuple = nb::borrow<nb::tuple>(item);
  require(nb::len(tuple) == size, "A table or feature has too few or many parts.");
  return tuple;
}

Rows to_rows(nb::handle array, bool writable, Arrays& arrays) {
  const Py_buffer& view = arrays.get(array, writable);
  require(view.ndim == 2 && (is_type(view, "f", 4) || is_type(view, "eH", 2)),
          "Rows must be (num_rows, dim) of float32, float16 or the bits of bfloat16.");
  require(view.shape[0] >= 1 && view.shape[0] <= kMaxRows && view.shape[1] >= 1 &&
              view.shape[1] <= static_cast<Py_ssize_t>(kMaxDim),
          "A table must have 1 to 2147483647 rows of 1 to 1024 values.");
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
  bags.wide_ids = ids.itemsize == 8;
  require(is_type(ids, "ilq", bags.wide_ids ? 8 : 4) && ids.ndim >= 1 && ids.ndim <= 2,
          "Ids must be int32 or int64 of one or two dimensions.");
  bags.ids = ids.buf;
  bags.num_ids = count_of(ids);
  bags.num_bags = static_cast<std::size_t>(ids.shape[0]);
  bags.length = ids.ndim == 2 ? static_cast<std::size_t>(ids.shape[1]) : 1;
  const bool flat = ids.ndim == 1;
  if (!feature[2].is_none()) {
    const Py_buffer& offsets = arrays.get(feature[2]);
    require(
        flat && offsets.ndim == 1 && offsets.shape[0] >= 1 && is_type(offsets, "lq", 8),
        "Offsets must be int64 (num_bags + 1,), of ids of one dimension.");
    bags.offsets = static_cast<const std::int64_t*>(offsets.buf);
    bags.num_bags = static_cast<std::size_t>(offsets.shape[0]) - 1;
  }
  if (!feature[3].is_none()) {
    bags.weights =
        numbers_of<const float>(feature[3], "f", bags.num_ids, false, arrays,
                                "Weights must be float32 of the shape of the ids.");
  }
  const int combiner = nb::cast<int>(feature[4]);
  require(combiner >= 0 && combiner <= static_cast<int>(Combiner::kSqrtn),
          "A combiner must be 0, 1 or 2.");
  bags.combiner = static_cast<Combiner>(combiner);
  return bags;
}

// From the kind and the numbers of a rule, in the order of the fields of Rule.
Rule to_rule(int kind, const nb::tuple& numbers) {
  require(kind >= 0 && kind < static_cast<int>(kRuleKinds), "No rule of this kind.");
  Rule rule = {};
  rule.kind = static_cast<RuleKind>(kind);
  double* const fields[] = {
      &rule.epsilon, &rule.beta_1,  &rule.beta_2,       &rule.learning_rate_power,
      &rule.l1,      &rule.l2_ftrl, &rule.l2_shrinkage, &rule.beta,
      &rule.clip,    &rule.l2,      &rule.weight_decay};
  std::size_t i = 0;
  require(nb::len(numbers) == std::size(fields), "A rule has 11 numbers.");
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
    const nb::tuple feature = to_tuple(item, 6);
    const Bags bags = to_bags(feature, arrays);
    require(bags.table < rows.size(), "A feature names a table that is not there.");
    const std::size_t count = bags.num_bags * rows[bags.table].dim;
    looked_up.push_back(
        {bags, numbers_of<float>(feature[5], "f", count, true, arrays,
                                 "Vectors must be float32 (num_bags, dim).")});
  }
  std::optional<OutOfRange> first;
  {
    nb::gil_scoped_release release;
    first = lookup(kernels, rows, looked_up, std::max<std::size_t>(threads, 1));
  }
  if (!first) return nb::none();
  return nb::make_tuple(first->feature, first->id);
}

// How many floats a slot of a rule holds for each row: 0, 1 or `dim`.
std::size_t slot_width(RuleKind kind, int slot, std::size_t dim) {
  switch (kind) {
    case RuleKind::kSgd:
      return 0;
    case RuleKind::kAdagrad:
      return slot == 0 ? dim : 0;
    case RuleKind::kRowwiseAdagrad:
      return slot == 0 ? 1 : 0;
    default:
      return dim;
  }
}

UpdatedTable to_updated(const nb::tuple& table, Arrays& arrays) {
  UpdatedTable to = {};
  to.index = nb::cast<std::size_t>(table[0]);
  to.rows = to_rows(table[1], true, arrays);
  require(nb::isinstance<nb::tuple>(table[3]), "A rule has 11 numbers.");
  to.rule = to_rule(nb::cast<int>(table[2]), nb::borrow<nb::tuple>(table[3]));
  const std::size_t num_rows = to.rows.num_rows;
  for (int slot = 0; slot < 2; ++slot) {
    const std::size_t width = slot_width(to.rule.kind, slot, to.rows.dim);
    require(table[4 + slot].is_none() == (width == 0),
            "The slots must be those of the rule.");
    if (width == 0) continue;
    to.slots[slot] =
        numbers_of<float>(table[4 + slot], "f", num_rows * width, true, arrays,
                          "A slot must be float32 of the shape of its rule.");
  }
  to.step = nb::cast<std::int64_t>(table[8]);
  const Py_buffer& moves = arrays.get(table[7]);
  require(is_type(moves, "d", 8) && moves.ndim == 1 && to.step >= 0,
          "Moves must be float64 of one dimension, and a step at least 0.");
  to.moves = static_cast<const double*>(moves.buf);
  if (!table[6].is_none()) {
    require(to.step <= moves.shape[0], "There must be a move for every step.");
    to.last_step =
        numbers_of<std::int32_t>(table[6], "il", num_rows, true, arrays,
                                 "The last steps must be int32, one for each row.");
  }
  to.seed = nb::cast<std::uint32_t>(table[9]);
  to.learning_rate = number(table[10]);
  to.adam_rate = number(table[11]);
  return to;
}

void update_tables(const nb::list& tables, const nb::list& features,
                   std::size_t threads, const std::string& instruction_set) {
  const RowKernels& kernels = row_kernels(instruction_set);
  Arrays arrays;
  std::vector<UpdatedTable> updated;
  for (nb::handle item : tables) {
    updated.push_back(to_updated(to_tuple(item, 12), arrays));
  }
  std::vector<Backpropagated> gradients;
  for (nb::handle item : features) {
    const nb::tuple feature = to_tuple(item, 7);
    const Bags bags = to_bags(feature, arrays);
    const Py_buffer& view = arrays.get(feature[5]);
    require(is_type(view, "f", 4) && view.ndim == 2 &&
                static_cast<std::size_t>(view.shape[0]) == bags.num_bags,
            "Gradients must be float32 (num_bags, dim).");
    for (const UpdatedTable& table : updated) {
      require(table.index != bags.table ||
                  static_cast<std::size_t>(view.shape[1]) == table.rows.dim,
              "Gradients must have the width of their table.");
    }
    gradients.push_back({bags, static_cast<const float*>(view.buf),
                         static_cast<float>(number(feature[6]))});
  }
  nb::gil_scoped_release release;
  update(kernels, updated, gradients, std::max<std::size_t>(threads, 1));
}

bool offsets_rise(nb::handle offsets) {
  Arrays arrays;
  const Py_buffer& view = arrays.get(offsets);
  require(is_type(view, "lq", 8) && view.ndim == 1, "Offsets must be int64 (n,).");
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
