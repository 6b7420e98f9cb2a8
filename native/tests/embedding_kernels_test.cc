// Runs the embedding kernels over all rules, number types and instruction sets, at odd
// widths and on several threads, for the sanitizers. Checks what needs no oracle: every
// number of threads gives the same bits. The numbers themselves are checked in
// tests/embeddings/test_kernels.py.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "../bag_lookup.h"
#include "../dot_tile.h"
#include "../row_update.h"
#include "../top_k.h"

using namespace shortlist;

namespace {

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "failed: %s\n", what);
  std::exit(1);
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), 4 * a.size()) == 0);
}

// A table on the heap without room to spare, so that a read past its end is seen.
struct HeapTable {
  HeapTable(RuleKind kind, RowType type, std::size_t num_rows, std::size_t dim,
            std::mt19937& random) {
    const std::size_t cells = num_rows * dim;
    std::uniform_real_distribution<float> draw(-1, 1);
    if (type == RowType::kFloat32) {
      floats.resize(cells);
      for (float& value : floats) value = draw(random);
    } else {
      // 0x3C00 is 1 in float16, 0.0078 in bfloat16.
      halves.resize(cells);
      for (auto& value : halves)
        value = static_cast<std::uint16_t>(0x3C00 + random() % 99);
    }
    slots[0].assign(kind == RuleKind::kRowwiseAdagrad ? num_rows : cells, 0.1f);
    slots[1].assign(cells, 0.1f);
    last_step.assign(num_rows, 0);
    rule = {kind, 1e-7, 0.9, 0.999, -0.4, 0.01, 0.1, 0.1, 0.1, 1.0, 0.01, 0.01};
    if (num_rows % 2) rule.clip = std::numeric_limits<double>::infinity();
    rows = {nullptr, num_rows, dim, type};
  }

  Rows view() {
    Rows here = rows;
    here.values = floats.empty() ? static_cast<void*>(halves.data())
                                 : static_cast<void*>(floats.data());
    return here;
  }

  UpdatedTable updated(std::size_t index, std::int64_t step,
                       const std::vector<double>& moves) {
    return {index,
            view(),
            rule,
            {slots[0].data(), slots[1].data()},
            last_step.data(),
            moves.data(),
            step,
            7,
            0.05,
            0.05};
  }

  bool same(const HeapTable& other) const {
    return same_bits(floats, other.floats) && halves == other.halves &&
           same_bits(slots[0], other.slots[0]) && same_bits(slots[1], other.slots[1]) &&
           last_step == other.last_step;
  }

  Rows rows;
  Rule rule;
  std::vector<float> floats;
  std::vector<std::uint16_t> halves;
  std::vector<float> slots[2];
  std::vector<std::int32_t> last_step;
};

// One feature with some padding and, if `jagged`, empty bags and a long one.
struct Feature {
  Feature(std::size_t table, std::size_t num_rows, std::size_t dim, int form,
          std::size_t num_bags, std::mt19937& random) {
    bags = {};
    bags.table = table;
    bags.num_bags = num_bags;
    bags.length = form == 1 ? 3 : 1;
    bags.combiner = static_cast<Combiner>(form % 3);
    std::size_t count = num_bags * bags.length;
    if (form == 2) {
      offsets.push_back(0);
      for (std::size_t i = 0; i < num_bags; ++i) {
        const std::size_t size = i == num_bags / 2 ? 5000 : random() % 3;
        offsets.push_back(offsets.back() + static_cast<std::int64_t>(size));
      }
      count = static_cast<std::size_t>(offsets.back());
    }
    for (std::size_t i = 0; i < count; ++i) {
      const auto id = static_cast<std::int64_t>(random() % (num_rows + form));
      wide.push_back(id >= static_cast<std::int64_t>(num_rows) ? -1 : id);
      narrow.push_back(static_cast<std::int32_t>(wide.back()));
      weights.push_back(static_cast<float>(random() % 5));
    }
    gradients.resize(num_bags * dim);
    for (float& value : gradients) value = static_cast<float>(random() % 9) / 8 - 0.5f;
    bags.num_ids = count;
    bags.wide_ids = form != 1;
  }

  Bags view() const {
    Bags here = bags;
    here.ids = bags.wide_ids ? static_cast<const void*>(wide.data())
                             : static_cast<const void*>(narrow.data());
    here.offsets = offsets.empty() ? nullptr : offsets.data();
    here.weights = offsets.empty() ? nullptr : weights.data();
    return here;
  }

  Bags bags;
  std::vector<std::int64_t> offsets, wide;
  std::vector<std::int32_t> narrow;
  std::vector<float> weights, gradients;
};

struct Outcome {
  std::vector<HeapTable> tables;
  std::vector<std::vector<float>> vectors;
};

// Two tables and all forms of features, looked up and updated in three steps.
Outcome run(RuleKind kind, RowType type, std::size_t dim, const char* set,
            std::size_t threads) {
  std::mt19937 random(static_cast<unsigned>(dim));
  Outcome outcome;
  const std::size_t sizes[] = {37, 5000};
  for (const std::size_t size : sizes) {
    outcome.tables.emplace_back(kind, type, size, dim, random);
  }
  std::vector<Feature> features;
  for (int form = 0; form < 3; ++form) {
    for (std::size_t t = 0; t < 2; ++t) {
      features.emplace_back(t, sizes[t], dim, form, form == 1 ? 0 : 700, random);
      features.emplace_back(t, sizes[t], dim, form, 300, random);
    }
  }
  const RowKernels& kernels = row_kernels(set);
  const std::vector<double> moves(8, 0.01);
  for (std::int64_t step = 1; step < 6; step += 2) {
    std::vector<Rows> rows;
    std::vector<UpdatedTable> updated;
    for (std::size_t t = 0; t < 2; ++t) {
      rows.push_back(outcome.tables[t].view());
      updated.push_back(outcome.tables[t].updated(t, step, moves));
    }
    std::vector<LookedUp> looked_up;
    std::vector<Backpropagated> gradients;
    outcome.vectors.clear();
    for (const Feature& feature : features) {
      outcome.vectors.emplace_back(feature.bags.num_bags * dim);
      looked_up.push_back({feature.view(), outcome.vectors.back().data()});
      gradients.push_back({feature.view(), feature.gradients.data(), 0.5f});
    }
    require(!lookup(kernels, rows, looked_up, threads), "all ids are in range");
    update(kernels, updated, gradients, threads);
  }
  return outcome;
}

void check_rules(const char* set, std::size_t dim) {
  for (std::size_t kind = 0; kind < kRuleKinds; ++kind) {
    for (std::size_t type = 0; type < kRowTypes; ++type) {
      const auto rule = static_cast<RuleKind>(kind);
      const auto number = static_cast<RowType>(type);
      const Outcome one = run(rule, number, dim, set, 1);
      for (const float value : one.vectors.front()) {
        require(std::isfinite(value), "vectors are finite");
      }
      for (const std::size_t threads : {2, 5}) {
        const Outcome many = run(rule, number, dim, set, threads);
        require(one.vectors == many.vectors, "vectors do not depend on threads");
        for (std::size_t t = 0; t < 2; ++t) {
          require(one.tables[t].same(many.tables[t]), "rows do not depend on threads");
        }
      }
    }
  }
}

void check_out_of_range() {
  std::mt19937 random(1);
  HeapTable table(RuleKind::kSgd, RowType::kFloat32, 10, 8, random);
  Feature good(0, 10, 8, 0, 5000, random);
  Feature bad(0, 10, 8, 0, 5000, random);
  bad.wide[4000] = -7;
  bad.wide[4500] = 10;
  std::vector<float> vectors(2 * 5000 * 8);
  const std::vector<LookedUp> features = {{good.view(), vectors.data()},
                                          {bad.view(), vectors.data() + 5000 * 8}};
  for (const std::size_t threads : {1, 2, 5}) {
    const auto first = lookup(row_kernels(""), {table.view()}, features, threads);
    require(first && first->feature == 1 && first->id == -7, "the first bad id");
  }
}

// Offsets that fall or lie are refused before anything outside the arrays is touched.
void check_offsets() {
  std::mt19937 random(1);
  HeapTable table(RuleKind::kSgd, RowType::kFloat32, 10, 8, random);
  const HeapTable before = table;
  const std::vector<double> moves(8, 0.01);
  const std::int64_t far = std::numeric_limits<std::int64_t>::max();
  for (const std::int64_t wrong : {std::int64_t{-1}, std::int64_t{0}, far, -far}) {
    Feature feature(0, 10, 8, 2, 700, random);
    std::vector<float> vectors(700 * 8);
    for (const std::size_t place : {0, 300, 699, 700}) {
      if (wrong == 0 && place == 0) continue;
      Feature bad = feature;
      bad.offsets[place] = wrong;
      int refused = 0;
      try {
        lookup(row_kernels(""), {table.view()}, {{bad.view(), vectors.data()}}, 2);
      } catch (const std::invalid_argument&) {
        ++refused;
      }
      try {
        update(row_kernels(""), {table.updated(0, 1, moves)},
               {{bad.view(), bad.gradients.data(), 1.0f}}, 2);
      } catch (const std::invalid_argument&) {
        ++refused;
      }
      require(refused == 2, "offsets that fall or lie are refused");
      require(table.same(before), "a refused update moves nothing");
    }
  }
}

// Calls from several threads at once share nothing but the code.
void check_concurrent_callers() {
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i) {
    callers.emplace_back([] { run(RuleKind::kAdam, RowType::kFloat16, 17, "", 2); });
  }
  for (std::thread& caller : callers) caller.join();
}

void check_top_k() {
  std::mt19937 random(1);
  std::vector<float> queries(33 * 37), items(40000 * 37);
  for (float& value : queries) value = static_cast<float>(random() % 9);
  for (float& value : items) value = static_cast<float>(random() % 9);
  const TopKInput input = {queries.data(), 33,     items.data(), 40000, 37, 20,
                           nullptr,        nullptr};
  std::vector<std::int32_t> expected;
  for (const std::size_t threads : {1, 4}) {
    std::vector<float> scores(33 * 20);
    std::vector<std::int32_t> indices(33 * 20);
    top_k(dot_kernel(""), input, threads, scores.data(), indices.data());
    require(expected.empty() || expected == indices,
            "top-k does not depend on threads");
    expected = indices;
  }
}

}  // namespace

int main() {
  for (const std::string& set : instruction_sets()) {
    for (const std::size_t dim : {1, 17, 64, 100}) check_rules(set.c_str(), dim);
    std::printf("all rules and number types on %s\n", set.c_str());
  }
  run(RuleKind::kAdam, RowType::kFloat32, kMaxDim, "", 2);
  check_out_of_range();
  check_offsets();
  check_concurrent_callers();
  check_top_k();
  std::printf("out-of-range ids, wrong offsets, concurrent callers, top-k\n");
  return 0;
}
