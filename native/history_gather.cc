#include "history_gather.h"

#include <algorithm>
#include <stdexcept>

#include "parallel.h"

namespace shortlist {
namespace {

// Rows a thread takes at a time.
constexpr std::size_t kRowsAtOnce = 1024;
// Rows whose binary searches take turns, so that each waits for memory while the
// others work.
constexpr std::size_t kTogether = 32;
// Items gathered and searched that are worth starting a thread for.
constexpr std::size_t kWorkPerThread = 1 << 14;
// What finding a history costs, in items copied.
constexpr std::size_t kWorkOfSearch = 16;

struct Range {
  std::int64_t begin;
  std::int64_t end;
};

void find_users(const UserItems& stored, const std::int64_t* users, std::size_t n,
                Range* ranges) {
  for (std::size_t i = 0; i < n; ++i) __builtin_prefetch(stored.offsets + users[i]);
  const auto num_items = static_cast<std::int64_t>(stored.num_items);
  for (std::size_t i = 0; i < n; ++i) {
    // As an unsigned number a negative user is too large as well.
    if (static_cast<std::uint64_t>(users[i]) >= stored.num_users) {
      throw std::out_of_range("A user must be one of those stored.");
    }
    const std::int64_t begin = stored.offsets[users[i]];
    const std::int64_t end = users[i] == 0 ? begin : stored.offsets[users[i] + 1];
    if (begin < 0 || begin > end || end > num_items) {
      throw std::out_of_range("The offsets of users must rise within their items.");
    }
    ranges[i] = {begin, end};
  }
}

// Moves the end of each range to the first item at or after its moment.
void cut_at(const std::int64_t* timestamps, const std::int64_t* moments, std::size_t n,
            Range* ranges) {
  std::int64_t low[kTogether], left[kTogether];
  for (std::size_t i = 0; i < n; ++i) {
    low[i] = ranges[i].begin;
    left[i] = ranges[i].end - ranges[i].begin;
    __builtin_prefetch(timestamps + low[i] + left[i] / 2);
  }
  for (bool any = true; any;) {
    any = false;
    for (std::size_t i = 0; i < n; ++i) {
      if (left[i] == 0) continue;
      const std::int64_t half = left[i] / 2;
      const bool earlier = timestamps[low[i] + half] < moments[i];
      low[i] += earlier ? half + 1 : 0;
      left[i] = earlier ? left[i] - half - 1 : half;
      __builtin_prefetch(timestamps + low[i] + left[i] / 2);
      any |= left[i] != 0;
    }
  }
  for (std::size_t i = 0; i < n; ++i) ranges[i].end = low[i];
}

// Moves the begin of a range to where the session of its moment begins.
void keep_session(const std::int64_t* timestamps, std::int64_t moment, std::int64_t gap,
                  Range& range) {
  // Unsigned: the difference of two times may not fit an int64.
  auto next = static_cast<std::uint64_t>(moment);
  std::int64_t first = range.end;
  for (; first > range.begin; --first) {
    const auto earlier = static_cast<std::uint64_t>(timestamps[first - 1]);
    if (next - earlier > static_cast<std::uint64_t>(gap)) break;
    next = earlier;
  }
  range.begin = first;
}

template <typename Item>
void copy_items(const UserItems& stored, const Range* ranges, std::size_t n,
                std::size_t length, std::int32_t* out) {
  const auto* items = static_cast<const Item*>(stored.items);
  for (std::size_t i = 0; i < n; ++i, out += length) {
    std::int32_t* const end =
        std::copy(items + ranges[i].begin, items + ranges[i].end, out);
    std::fill(end, out + length, -1);
  }
}

void gather_block(const UserItems& stored, const HistoryQuery& query, std::size_t first,
                  std::size_t n, std::int32_t* out) {
  Range ranges[kTogether];
  const std::int64_t* const moments =
      query.moments == nullptr ? nullptr : query.moments + first;
  const auto longest = static_cast<std::int64_t>(query.length);
  find_users(stored, query.users + first, n, ranges);
  if (moments != nullptr) cut_at(stored.timestamps, moments, n, ranges);
  for (std::size_t i = 0; i < n; ++i) {
    Range& range = ranges[i];
    range.begin = std::max(range.begin, range.end - longest);
    const auto* items = static_cast<const char*>(stored.items);
    __builtin_prefetch(items +
                       range.begin * static_cast<std::int64_t>(stored.item_bytes));
    if (query.gap >= 0) keep_session(stored.timestamps, moments[i], query.gap, range);
  }
  out += first * query.length;
  if (stored.item_bytes == 1) {
    copy_items<std::uint8_t>(stored, ranges, n, query.length, out);
  } else if (stored.item_bytes == 2) {
    copy_items<std::uint16_t>(stored, ranges, n, query.length, out);
  } else {
    copy_items<std::int32_t>(stored, ranges, n, query.length, out);
  }
}

}  // namespace

void gather_histories(const UserItems& stored, const HistoryQuery& query,
                      std::size_t threads, std::int32_t* out) {
  const std::size_t work = query.num_rows * (query.length + kWorkOfSearch);
  threads = std::min(std::max<std::size_t>(work / kWorkPerThread, 1), threads);
  const std::size_t blocks = (query.num_rows + kRowsAtOnce - 1) / kRowsAtOnce;
  run_tasks(blocks, threads, [&](std::size_t task) {
    const std::size_t end = std::min((task + 1) * kRowsAtOnce, query.num_rows);
    for (std::size_t i = task * kRowsAtOnce; i < end; i += kTogether) {
      gather_block(stored, query, i, std::min(kTogether, end - i), out);
    }
  });
}

}  // namespace shortlist
