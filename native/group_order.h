// The order of rows by group and, within a group, by time. Knows nothing of what the
// groups are.
//
// Rows are distributed to buckets of neighbouring groups, which fit into the cache, and
// each bucket is sorted by digits (least significant first; Knuth 1973, volume 3,
// section 5.2.5). The order is stable and so the same for any number of threads.
#ifndef SHORTLIST_GROUP_ORDER_H_
#define SHORTLIST_GROUP_ORDER_H_

#include <cstddef>
#include <cstdint>

namespace shortlist {

struct GroupedRows {
  const std::int32_t* groups;  // others than 0 .. num_groups - 1 are refused
  std::size_t num_rows;
  std::size_t num_groups;
};

// Fills order (num_rows): rows by group, then time, then place. Row is a type that can
// number all rows: a narrow one takes less memory while they are sorted. Throws
// std::out_of_range for a group out of range.
template <typename Row>
void group_order(const GroupedRows& rows, const std::int64_t* times,
                 std::size_t threads, std::int64_t* order);

extern template void group_order<std::uint32_t>(const GroupedRows&, const std::int64_t*,
                                                std::size_t, std::int64_t*);
extern template void group_order<std::uint64_t>(const GroupedRows&, const std::int64_t*,
                                                std::size_t, std::int64_t*);

// Fills offsets (num_groups + 1): group g has the places offsets[g] .. offsets[g + 1]
// of the order. Throws as group_order.
void group_offsets(const GroupedRows& rows, std::size_t threads, std::int64_t* offsets);

}  // namespace shortlist

#endif  // SHORTLIST_GROUP_ORDER_H_
