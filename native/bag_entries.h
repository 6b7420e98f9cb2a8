// The entries of bags: which rows they combine, with which coefficients.
//
// Knows ids, padding, weights and combiners; knows nothing of the rows.
#ifndef SHORTLIST_BAG_ENTRIES_H_
#define SHORTLIST_BAG_ENTRIES_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "embedding_types.h"

namespace shortlist {

// Some consecutive bags of one feature: what a thread takes at a time.
struct BagRange {
  std::size_t feature;
  std::size_t begin;
  std::size_t end;
};

// Appends ranges that cover the bags of feature number `feature`, of about `ids` ids.
void split_bags(const Bags& bags, std::size_t feature, std::size_t ids,
                std::vector<BagRange>& ranges);

// The number of ids in the bags from `begin` to `end`. Throws std::invalid_argument if
// their offsets are not within the ids.
std::size_t num_ids_of(const Bags& bags, std::size_t begin, std::size_t end);

// Reused from range to range, to allocate once.
struct BagEntries {
  std::vector<std::uint32_t> rows;  // padding is left out
  std::vector<float> coefficients;
  std::vector<std::uint32_t> ends;  // the entries of bag i end before ends[i]
  std::size_t size = 0;             // of `rows` and `coefficients` in use
  bool one_each = false;            // every bag is one row, times 1
  bool out_of_range = false;
  std::int64_t first_out_of_range = 0;

  // An id outside the table counts as row 0, and the first one is kept. Throws
  // std::invalid_argument for offsets that fall.
  void read(const Bags& bags, std::size_t num_rows, std::size_t begin, std::size_t end);
};

}  // namespace shortlist

#endif  // SHORTLIST_BAG_ENTRIES_H_
