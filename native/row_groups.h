// Gradients grouped by row.
//
// Knows tables, bags and threads; knows nothing of update rules.
//
// Entries are distributed to buckets by their row, so that a thread that takes a bucket
// owns its rows. The entries of a row keep their order, whatever the number of threads.
#ifndef SHORTLIST_ROW_GROUPS_H_
#define SHORTLIST_ROW_GROUPS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "embedding_types.h"
#include "row_kernels.h"

namespace shortlist {

// The gradients of one feature in one backward pass.
struct Backpropagated {
  Bags bags;
  const float* gradients;  // (num_bags, dim)
  float scale;
};

// Entries of some rows of one table, all that there are for these rows.
struct Bucket {
  std::size_t table;  // index into `tables` of deal()
  const Entry* entries;
  std::size_t size;
  unsigned bits;  // of the hash that all its rows share, if dealt by hash
};

// Memory that a thread keeps from call to call: fresh pages cost more than the sorting.
class EntrySpace {
 public:
  Entry* at_least(std::size_t count);

 private:
  std::unique_ptr<Entry[]> entries_;
  std::size_t size_ = 0;
};

// Deals out the entries of all features whose table is among `tables`, in their order.
// The buckets point into memory that lives until the next call on this thread.
std::vector<Bucket> deal(const std::vector<UpdatedTable>& tables,
                         const std::vector<Backpropagated>& features,
                         std::size_t threads);

// The rows of one bucket, in the order in which they first appear.
class GroupedBucket {
 public:
  void group(const Bucket& bucket);
  const RowGroups& groups() const { return groups_; }

 private:
  std::vector<std::uint32_t> slots_;     // hash table of groups, 1 + number
  std::vector<std::uint32_t> group_of_;  // of each entry
  std::vector<std::uint32_t> first_;     // entry of each group
  std::vector<std::uint32_t> starts_;
  std::vector<std::uint32_t> order_;
  RowGroups groups_ = {};
};

}  // namespace shortlist

#endif  // SHORTLIST_ROW_GROUPS_H_
