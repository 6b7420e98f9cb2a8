// Rows copied or added up into float32 vectors, for one instruction set.
//
// Knows rows and coefficients; knows nothing of ids that are padding or out of range.
// Included by row_kernels.cc after row_lanes.h, once for each instruction set, so it
// has no include guard.

namespace shortlist {
namespace SHORTLIST_NAMESPACE {

// How many rows to ask memory for ahead of their use: enough to hide its latency, few
// enough to be there still.
SHORTLIST_INLINE std::size_t rows_ahead(std::size_t row_bytes) {
  const std::size_t ahead = 16384 / row_bytes;
  return ahead < 2 ? 2 : ahead > 16 ? 16 : ahead;
}

template <typename Row>
SHORTLIST_TARGET void gather(const Rows& rows, const std::uint32_t* ids,
                             std::size_t count, float* out) {
  using Stored = typename Row::Stored;
  const auto* values = static_cast<const Stored*>(rows.values);
  const std::size_t dim = rows.dim;
  const std::size_t bytes = dim * sizeof(Stored);
  const std::size_t ahead = rows_ahead(bytes);
  for (std::size_t i = 0; i < ahead && i < count; ++i) {
    prefetch(values + ids[i] * dim, bytes);
  }
  for (std::size_t i = 0; i < count; ++i) {
    if (i + ahead < count) prefetch(values + ids[i + ahead] * dim, bytes);
    const Stored* row = values + ids[i] * dim;
    float* to = out + i * dim;
    std::size_t d = 0;
    for (; d + kLanes <= dim; d += kLanes) {
      store_floats(to + d, Row::load(row + d, kLanes), kLanes);
    }
    if (d < dim) store_floats(to + d, Row::load(row + d, dim - d), dim - d);
  }
}

// N vectors of columns from `values` on, added up in registers over `count` entries.
// The last vector holds `last` columns. Of the `left` entries still to come those
// `ahead` are asked for.
template <typename Row, int N>
SHORTLIST_INLINE void combine_columns(const typename Row::Stored* values,
                                      std::size_t dim, const std::uint32_t* ids,
                                      const float* coefficients, std::size_t count,
                                      std::size_t last, float* out,
                                      const typename Row::Stored* rows,
                                      std::size_t ahead, std::size_t left) {
  Lanes sums[N];
#pragma GCC unroll 8
  for (int k = 0; k < N; ++k) sums[k] = Lanes{};
  for (std::size_t p = 0; p < count; ++p) {
    if (p + ahead < left) {
      prefetch(rows + ids[p + ahead] * dim, dim * sizeof(typename Row::Stored));
    }
    const typename Row::Stored* row = values + ids[p] * dim;
    const float coefficient = coefficients[p];
#pragma GCC unroll 8
    for (int k = 0; k < N; ++k) {
      const std::size_t width = k + 1 < N ? kLanes : last;
      sums[k] += Row::load(row + k * kLanes, width) * coefficient;
    }
  }
#pragma GCC unroll 8
  for (int k = 0; k < N; ++k) {
    store_floats(out + k * kLanes, sums[k], k + 1 < N ? kLanes : last);
  }
}

template <typename Row>
SHORTLIST_TARGET void combine(const Rows& rows, const std::uint32_t* ids,
                              const float* coefficients, const std::uint32_t* ends,
                              std::size_t num_bags, float* out) {
  using Stored = typename Row::Stored;
  const auto* values = static_cast<const Stored*>(rows.values);
  const std::size_t dim = rows.dim;
  const std::size_t bytes = dim * sizeof(Stored);
  const std::size_t ahead = rows_ahead(bytes);
  const std::size_t total = num_bags ? ends[num_bags - 1] : 0;
  for (std::size_t p = 0; p < ahead && p < total; ++p) {
    prefetch(values + ids[p] * dim, bytes);
  }
  std::size_t begin = 0;
  for (std::size_t bag = 0; bag < num_bags; ++bag) {
    const std::size_t count = ends[bag] - begin;
    // The first block of columns asks for whole rows; the others find them there.
    std::size_t left = total - begin;
    float* to = out + bag * dim;
    std::size_t d = 0;
#define SHORTLIST_COLUMNS(N, LAST)                                                   \
  combine_columns<Row, N>(values + d, dim, ids + begin, coefficients + begin, count, \
                          LAST, to + d, values, ahead, left);                        \
  left = 0
    for (; d + 8 * kLanes <= dim; d += 8 * kLanes) {
      SHORTLIST_COLUMNS(8, kLanes);
    }
    if (d + 4 * kLanes <= dim) {
      SHORTLIST_COLUMNS(4, kLanes);
      d += 4 * kLanes;
    }
    if (d + 2 * kLanes <= dim) {
      SHORTLIST_COLUMNS(2, kLanes);
      d += 2 * kLanes;
    }
    if (d + kLanes <= dim) {
      SHORTLIST_COLUMNS(1, kLanes);
      d += kLanes;
    }
    if (d < dim) {
      SHORTLIST_COLUMNS(1, dim - d);
    }
#undef SHORTLIST_COLUMNS
    begin = ends[bag];
  }
}

}  // namespace SHORTLIST_NAMESPACE
}  // namespace shortlist
