// Updates touched rows by their rule, for one instruction set.
//
// Knows the formulas of reference.update_rows, in their order; knows nothing of how
// entries were grouped. Included by row_kernels.cc after row_lanes.h, once for each
// instruction set, so it has no include guard.

namespace shortlist {
namespace SHORTLIST_NAMESPACE {

constexpr std::size_t kGroupsAhead = 8;

SHORTLIST_INLINE const Entry& entry_at(const RowGroups& groups, std::size_t p) {
  return groups.entries[groups.order[p]];
}

// N vectors of columns of a row's gradient, added up over its entries. Gradients of
// entries before `left` are asked for ahead of their use.
template <int N>
SHORTLIST_INLINE void sum_columns(const RowGroups& groups, std::size_t begin,
                                  std::size_t end, std::size_t column, std::size_t last,
                                  float* sum, std::size_t left, std::size_t dim) {
  Lanes sums[N];
#pragma GCC unroll 4
  for (int k = 0; k < N; ++k) sums[k] = Lanes{};
  for (std::size_t p = begin; p < end; ++p) {
    if (p + kGroupsAhead < left) {
      prefetch(entry_at(groups, p + kGroupsAhead).gradient, dim * sizeof(float));
    }
    const Entry& entry = entry_at(groups, p);
    const float* gradient = entry.gradient + column;
#pragma GCC unroll 4
    for (int k = 0; k < N; ++k) {
      sums[k] += load_floats(gradient + k * kLanes, k + 1 < N ? kLanes : last) *
                 entry.coefficient;
    }
  }
#pragma GCC unroll 4
  for (int k = 0; k < N; ++k) store_floats(sum + column + k * kLanes, sums[k], kLanes);
}

// The gradient of a row, with zeros up to a whole number of vectors.
SHORTLIST_INLINE void sum_entries(const RowGroups& groups, std::size_t begin,
                                  std::size_t end, std::size_t dim, float* sum) {
  // The first block of columns asks for whole gradients; the others find them there.
  std::size_t left = groups.starts[groups.num_groups];
  std::size_t d = 0;
  for (; d + 4 * kLanes <= dim; d += 4 * kLanes, left = 0) {
    sum_columns<4>(groups, begin, end, d, kLanes, sum, left, dim);
  }
  for (; d < dim; d += kLanes, left = 0) {
    const std::size_t last = dim - d < kLanes ? dim - d : kLanes;
    sum_columns<1>(groups, begin, end, d, last, sum, left, dim);
  }
}

SHORTLIST_INLINE float squares_of(const float* gradient, std::size_t dim) {
  Lanes squares = {};
  for (std::size_t d = 0; d < dim; d += kLanes) {
    const Lanes g = load_floats(gradient + d, kLanes);
    squares += g * g;
  }
  return sum_of(squares);
}

// base^exponent of which `powers` holds the exponents 1, 2, 4, ...
SHORTLIST_INLINE float power_of(const double* powers, std::uint32_t exponent) {
  double product = 1;
  for (; exponent != 0; exponent >>= 1, ++powers) {
    if (exponent & 1) product *= *powers;
  }
  return static_cast<float>(product);
}

SHORTLIST_INLINE Lanes raised(Lanes values, float power) {
  if (power == 0.5f) return square_root(values);
  for (std::size_t i = 0; i < kLanes; ++i) values[i] = std::pow(values[i], power);
  return values;
}

// The state of one row for the rules.
struct RowState {
  std::size_t row;
  float shorten;      // factor that limits the gradient to `clip`
  float accumulator;  // of row-wise Adagrad, this step's share included
  float move;         // of the steps that Adam catches up with
  float shrink_1;     // of its momentum in those steps
  float shrink_2;
};

// The new values of kLanes cells: `w` and its gradient `g`, of which `count` are in the
// table. `cell` is the place of the first one in the slots.
template <RuleKind kKind>
SHORTLIST_INLINE Lanes moved(const Movement& by, const RowState& state, Lanes w,
                             Lanes g, std::size_t cell, std::size_t count) {
  float* const* slots = by.table.slots;
  Lanes m = {}, v = {};
  if (kKind == RuleKind::kAdam) {
    m = load_floats(slots[0] + cell, count);
    v = load_floats(slots[1] + cell, count);
    if (by.table.last_step) {
      w -= state.move * m / (square_root(v) + by.epsilon);
      m *= state.shrink_1;
      v *= state.shrink_2;
    }
  }
  w -= by.decay * w;
  switch (kKind) {
    case RuleKind::kSgd:
      return w - by.rate * g;
    case RuleKind::kAdagrad: {
      const Lanes accumulator = load_floats(slots[0] + cell, count) + g * g;
      store_floats(slots[0] + cell, accumulator, count);
      return w - by.rate * g / square_root(accumulator + by.epsilon);
    }
    case RuleKind::kRowwiseAdagrad:
      return w - by.rate * g / (std::sqrt(state.accumulator) + by.epsilon);
    case RuleKind::kAdam:
      m += (g - m) * by.grow_1;
      v += (g * g - v) * by.grow_2;
      store_floats(slots[0] + cell, m, count);
      store_floats(slots[1] + cell, v, count);
      return w - by.adam_rate * m / (square_root(v) + by.epsilon);
    case RuleKind::kFtrl: {
      const Lanes before = load_floats(slots[0] + cell, count);
      const Lanes after = before + g * g;
      const Lanes grown = raised(after, by.power);
      Lanes linear = load_floats(slots[1] + cell, count) + (g + by.shrinkage * w);
      linear -= (grown - raised(before, by.power)) / by.rate * w;
      store_floats(slots[0] + cell, after, count);
      store_floats(slots[1] + cell, linear, count);
      const Lanes most = all_lanes(by.l1);
      Lanes clipped = linear < most ? linear : most;
      clipped = clipped > -most ? clipped : -most;
      return (clipped - linear) / (grown / by.rate + 2 * by.l2_ftrl);
    }
  }
}

template <RuleKind kKind, typename Row>
SHORTLIST_INLINE void move_row(const Movement& by, const float* gradient,
                               std::size_t index) {
  using Stored = typename Row::Stored;
  const std::size_t dim = by.table.rows.dim;
  Stored* row = static_cast<Stored*>(by.table.rows.values) + index * dim;
  RowState state = {index, 1, 0, 0, 1, 1};
  if (by.clip < std::numeric_limits<float>::infinity()) {
    const float length = std::sqrt(squares_of(gradient, dim));
    if (length > by.clip) state.shorten = by.clip / length;
  }
  if (kKind == RuleKind::kRowwiseAdagrad) {
    Lanes squares = {};
    for (std::size_t d = 0; d < dim; d += kLanes) {
      const std::size_t count = dim - d < kLanes ? dim - d : kLanes;
      const Lanes g = load_floats(gradient + d, kLanes) * state.shorten +
                      by.l2 * Row::load(row + d, count);
      squares += g * g;
    }
    float& accumulator = by.table.slots[0][index];
    accumulator += sum_of(squares) / static_cast<float>(dim);
    state.accumulator = accumulator;
  }
  if (kKind == RuleKind::kAdam && by.table.last_step) {
    std::int32_t& last = by.table.last_step[index];
    // Only a damaged table has a step that is not over yet.
    if (last > 0 && last < by.table.step) {
      const auto skipped = static_cast<std::uint32_t>(by.table.step - 1 - last);
      state.move = static_cast<float>(by.table.moves[last]);
      state.shrink_1 = power_of(by.beta_1_powers, skipped);
      state.shrink_2 = power_of(by.beta_2_powers, skipped);
    }
    last = static_cast<std::int32_t>(by.table.step);
  }
  const std::uint32_t place =
      (static_cast<std::uint32_t>(index) * 0x9E3779B1u) ^ by.random_start;
  for (std::size_t d = 0; d < dim; d += kLanes) {
    const std::size_t count = dim - d < kLanes ? dim - d : kLanes;
    const Lanes w = Row::load(row + d, count);
    const Lanes g = load_floats(gradient + d, kLanes) * state.shorten + by.l2 * w;
    Row::store(row + d, moved<kKind>(by, state, w, g, index * dim + d, count), count,
               place, d);
  }
}

template <RuleKind kKind, typename Row>
SHORTLIST_INLINE void prefetch_row(const Movement& by, std::size_t index) {
  using Stored = typename Row::Stored;
  const std::size_t dim = by.table.rows.dim;
  prefetch(static_cast<const Stored*>(by.table.rows.values) + index * dim,
           dim * sizeof(Stored));
  if (kKind == RuleKind::kRowwiseAdagrad) {
    __builtin_prefetch(by.table.slots[0] + index);
  } else if (kKind != RuleKind::kSgd) {
    prefetch(by.table.slots[0] + index * dim, dim * sizeof(float));
    if (kKind != RuleKind::kAdagrad) {
      prefetch(by.table.slots[1] + index * dim, dim * sizeof(float));
    }
    if (kKind == RuleKind::kAdam && by.table.last_step) {
      __builtin_prefetch(by.table.last_step + index);
    }
  }
}

template <RuleKind kKind, typename Row>
SHORTLIST_TARGET void move(const Movement& by, const RowGroups& groups) {
  alignas(64) float gradient[kMaxDim];
  const std::size_t dim = by.table.rows.dim;
  const std::size_t total = groups.starts[groups.num_groups];
  for (std::size_t i = 0; i < kGroupsAhead; ++i) {
    if (i < total) prefetch(entry_at(groups, i).gradient, dim * sizeof(float));
    if (i >= groups.num_groups) continue;
    prefetch_row<kKind, Row>(by, entry_at(groups, groups.starts[i]).row);
  }
  for (std::size_t g = 0; g < groups.num_groups; ++g) {
    const std::size_t next = g + kGroupsAhead;
    if (next < groups.num_groups) {
      prefetch_row<kKind, Row>(by, entry_at(groups, groups.starts[next]).row);
    }
    const std::size_t begin = groups.starts[g];
    sum_entries(groups, begin, groups.starts[g + 1], dim, gradient);
    move_row<kKind, Row>(by, gradient, entry_at(groups, begin).row);
  }
}

}  // namespace SHORTLIST_NAMESPACE
}  // namespace shortlist
