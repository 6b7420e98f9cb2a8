// Exact top-k by dot product over all items, threaded.
//
// Knows ranking and threads; knows nothing of Python. Arguments are trusted: shapes and
// ranges are checked by the caller (src/shortlist/native.py).
#ifndef SHORTLIST_TOP_K_H_
#define SHORTLIST_TOP_K_H_

#include <cstddef>
#include <cstdint>

#include "dot_tile.h"

namespace shortlist {

struct TopKInput {
  const float* queries;  // (num_queries, dim)
  std::size_t num_queries;
  const float* items;  // (num_items, dim)
  std::size_t num_items;
  std::size_t dim;
  std::size_t k;
  // Query i must not get exclude_indices[exclude_offsets[i] .. exclude_offsets[i + 1]),
  // in any order, repeats allowed. Null offsets exclude nothing.
  const std::int64_t* exclude_offsets;
  const std::int32_t* exclude_indices;
};

// Fills `scores` and `indices`, both (num_queries, k): highest score first, ties by
// lower index, then -inf and -1 where fewer than k items are left. An item whose score
// is NaN is never returned. The result does not depend on `threads` (at least 1).
void top_k(const DotKernel& kernel, const TopKInput& input, std::size_t threads,
           float* scores, std::int32_t* indices);

}  // namespace shortlist

#endif  // SHORTLIST_TOP_K_H_
