// Looks up the bags of many features in many tables at once, threaded.
//
// Knows features and threads; knows nothing of gradients or Python. Arguments are
// trusted except for the ids: one outside its table counts as row 0 and is reported.
#ifndef SHORTLIST_BAG_LOOKUP_H_
#define SHORTLIST_BAG_LOOKUP_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "embedding_types.h"
#include "row_kernels.h"

namespace shortlist {

struct LookedUp {
  Bags bags;
  float* vectors;  // (num_bags, dim)
};

struct OutOfRange {
  std::size_t feature;
  std::int64_t id;
};

// Fills the vectors of every feature. Returns the first id, by feature and then by
// position, that is neither a row nor padding. Nothing depends on `threads`.
std::optional<OutOfRange> lookup(const RowKernels& kernels,
                                 const std::vector<Rows>& tables,
                                 const std::vector<LookedUp>& features,
                                 std::size_t threads);

}  // namespace shortlist

#endif  // SHORTLIST_BAG_LOOKUP_H_
