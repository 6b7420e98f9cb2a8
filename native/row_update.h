// Updates the touched rows of many tables once, threaded.
//
// Knows tables, features and threads; knows nothing of Python. Arguments are trusted.
#ifndef SHORTLIST_ROW_UPDATE_H_
#define SHORTLIST_ROW_UPDATE_H_

#include <cstddef>
#include <vector>

#include "embedding_types.h"
#include "row_groups.h"
#include "row_kernels.h"

namespace shortlist {

// The gradient of a row is the sum over its entries in all features, in their order.
// One thread owns a row: there are no atomics on rows, and no bit of the result depends
// on `threads`. Features of tables that are not in `tables` are left out.
void update(const RowKernels& kernels, const std::vector<UpdatedTable>& tables,
            const std::vector<Backpropagated>& features, std::size_t threads);

}  // namespace shortlist

#endif  // SHORTLIST_ROW_UPDATE_H_
