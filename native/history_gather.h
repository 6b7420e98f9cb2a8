// Gathers what users did before a moment, or last, as padded lists, threaded.
//
// Knows histories and threads; knows nothing of Python. Shapes are checked by the
// caller (gather_bindings.cc), users and offsets here, as they are read.
#ifndef SHORTLIST_HISTORY_GATHER_H_
#define SHORTLIST_HISTORY_GATHER_H_

#include <cstddef>
#include <cstdint>

namespace shortlist {

// User u's items are those from offsets[u] to offsets[u + 1], oldest first. User 0 has
// none, whatever is stored there.
struct UserItems {
  const std::int64_t* offsets;     // (num_users + 1,)
  const std::int64_t* timestamps;  // (num_items,), rising for each user
  const void* items;               // (num_items,)
  std::size_t item_bytes;          // 1 or 2 unsigned, or 4
  std::size_t num_users;
  std::size_t num_items;
};

struct HistoryQuery {
  const std::int64_t* users;    // (num_rows,)
  const std::int64_t* moments;  // (num_rows,), or null for the newest items of all
  std::size_t num_rows;
  std::size_t length;
  // Only the items of the session that the moment is in: walking back from it, up to
  // the first two neighbours more than so far apart. Negative for all items, as it must
  // be without moments.
  std::int64_t gap;
};

// Fills `out` (num_rows, length) with the newest items strictly before each moment,
// oldest first, and -1 behind them. Nothing depends on `threads`. Throws
// std::out_of_range for a user out of range, or one whose items lie outside.
void gather_histories(const UserItems& stored, const HistoryQuery& query,
                      std::size_t threads, std::int32_t* out);

}  // namespace shortlist

#endif  // SHORTLIST_HISTORY_GATHER_H_
