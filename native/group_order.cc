#include "group_order.h"

#include <algorithm>
#include <array>
#include <memory>
#include <stdexcept>
#include <vector>

#include "parallel.h"

namespace shortlist {
namespace {

// Two copies of a bucket of this size stay in the second level cache.
constexpr std::size_t kBucketRows = 1 << 14;
// More buckets than this, and dealing out misses the cache and the page table.
constexpr unsigned kMaxBucketBits = 11;
constexpr std::size_t kChunkRows = 1 << 20;
constexpr unsigned kDigitBits = 11;
// Fewer rows are sorted by comparing: clearing the counters would take longer.
constexpr std::size_t kFewRows = 1 << 9;

template <typename Row>
struct Entry {
  std::uint64_t time;  // in the order of the signed times
  Row row;
  std::uint32_t group;
};

std::uint64_t unsigned_time(std::int64_t time) {
  return static_cast<std::uint64_t>(time) ^ (std::uint64_t{1} << 63);
}

// As an unsigned number a negative group is too large as well.
[[noreturn]] void refuse_group() {
  throw std::out_of_range("A group must lie between 0 and the number of groups.");
}

// How groups are dealt out: neighbours together.
struct Dealing {
  unsigned shift;
  std::size_t num_buckets;
};

Dealing dealing_of(const GroupedRows& rows) {
  unsigned bits = 0, shift = 0;
  while (bits < kMaxBucketBits && rows.num_rows >> bits > kBucketRows) ++bits;
  while ((rows.num_groups - 1) >> shift >> bits) ++shift;
  return {shift, ((rows.num_groups - 1) >> shift) + 1};
}

// The rows of the groups of one bucket, in their order, and where they go.
template <typename Row>
struct Bucket {
  Entry<Row>* entries;
  std::size_t size;
  std::uint32_t first_group;
  std::size_t num_groups;
  std::int64_t* order;
};

// Counts the rows of each group into counts (num_groups, zeros). Whether the rows of
// every group come in the order of time.
template <typename Row>
bool count_groups(const Bucket<Row>& bucket, std::size_t* counts) {
  std::vector<std::uint64_t> latest(bucket.num_groups, 0);
  bool sorted = true;
  for (std::size_t i = 0; i < bucket.size; ++i) {
    const Entry<Row>& entry = bucket.entries[i];
    const std::uint32_t group = entry.group - bucket.first_group;
    ++counts[group];
    sorted &= latest[group] <= entry.time;
    latest[group] = entry.time;
  }
  return sorted;
}

// Sorts stably by one digit from `from` to `to`.
template <typename Row>
void sort_digit(const Entry<Row>* from, Entry<Row>* to, std::size_t size,
                std::uint64_t least, unsigned shift, unsigned bits) {
  std::array<std::size_t, (1 << kDigitBits) + 1> places;
  const std::uint64_t mask = (std::uint64_t{1} << bits) - 1;
  std::fill_n(places.begin(), mask + 2, 0);
  const auto digit = [&](const Entry<Row>& entry) {
    return (entry.time - least) >> shift & mask;
  };
  for (std::size_t i = 0; i < size; ++i) ++places[digit(from[i]) + 1];
  for (std::size_t d = 0; d < mask; ++d) places[d + 1] += places[d];
  for (std::size_t i = 0; i < size; ++i) to[places[digit(from[i])]++] = from[i];
}

// Sorts a bucket by time alone, stably. The result is in one of the two arrays.
template <typename Row>
const Entry<Row>* sort_times(const Bucket<Row>& bucket, Entry<Row>* spare) {
  Entry<Row>* from = bucket.entries;
  std::uint64_t least = from[0].time, most = from[0].time;
  for (std::size_t i = 1; i < bucket.size; ++i) {
    least = std::min(least, from[i].time);
    most = std::max(most, from[i].time);
  }
  unsigned bits = 0;
  while (bits < 64 && (most - least) >> bits) ++bits;
  const unsigned digits = (bits + kDigitBits - 1) / kDigitBits;
  for (unsigned d = 0; d < digits; ++d) {
    const unsigned begin = bits * d / digits, end = bits * (d + 1) / digits;
    sort_digit(from, spare, bucket.size, least, begin, end - begin);
    std::swap(from, spare);
  }
  return from;
}

// Writes the rows of a bucket in their order: by time, then stably by group (25M rows
// of 160,000 groups: 0.52 s; comparing within each group: 0.95 s).
template <typename Row>
void sort_bucket(const Bucket<Row>& bucket) {
  std::vector<std::size_t> places(bucket.num_groups + 1, 0);
  const bool sorted = count_groups(bucket, places.data() + 1);
  for (std::size_t g = 1; g <= bucket.num_groups; ++g) places[g] += places[g - 1];
  const Entry<Row>* entries = bucket.entries;
  std::unique_ptr<Entry<Row>[]> spare;
  if (!sorted && bucket.size < kFewRows) {
    std::stable_sort(
        bucket.entries, bucket.entries + bucket.size,
        [](const Entry<Row>& a, const Entry<Row>& b) { return a.time < b.time; });
  } else if (!sorted) {
    spare.reset(new Entry<Row>[bucket.size]);
    entries = sort_times(bucket, spare.get());
  }
  for (std::size_t i = 0; i < bucket.size; ++i) {
    const std::size_t group = entries[i].group - bucket.first_group;
    bucket.order[places[group]++] = static_cast<std::int64_t>(entries[i].row);
  }
}

// Calls task(chunk, begin, end) for ranges of rows, in parallel.
template <typename Task>
void for_chunks(std::size_t num_rows, std::size_t threads, const Task& task) {
  run_tasks((num_rows + kChunkRows - 1) / kChunkRows, threads, [&](std::size_t chunk) {
    const std::size_t begin = chunk * kChunkRows;
    task(chunk, begin, std::min(begin + kChunkRows, num_rows));
  });
}

}  // namespace

template <typename Row>
void group_order(const GroupedRows& rows, const std::int64_t* times,
                 std::size_t threads, std::int64_t* order) {
  if (rows.num_rows == 0) return;
  if (rows.num_groups == 0) refuse_group();
  const Dealing dealing = dealing_of(rows);
  const std::size_t num_chunks = (rows.num_rows + kChunkRows - 1) / kChunkRows;
  // places[chunk][bucket], first the number of rows.
  std::vector<std::size_t> places(num_chunks * dealing.num_buckets, 0);
  for_chunks(rows.num_rows, threads,
             [&](std::size_t chunk, std::size_t begin, std::size_t end) {
               std::size_t* counts = places.data() + chunk * dealing.num_buckets;
               for (std::size_t i = begin; i < end; ++i) {
                 const auto group = static_cast<std::uint32_t>(rows.groups[i]);
                 if (group >= rows.num_groups) refuse_group();
                 ++counts[group >> dealing.shift];
               }
             });
  std::vector<std::size_t> starts(dealing.num_buckets + 1, 0);
  std::size_t next = 0;
  for (std::size_t b = 0; b < dealing.num_buckets; ++b) {
    starts[b] = next;
    for (std::size_t c = 0; c < num_chunks; ++c) {
      std::size_t& place = places[c * dealing.num_buckets + b];
      const std::size_t count = place;
      place = next;
      next += count;
    }
  }
  starts.back() = next;

  // Not a vector, which would write it all once more.
  const std::unique_ptr<Entry<Row>[]> dealt(new Entry<Row>[rows.num_rows]);
  for_chunks(rows.num_rows, threads,
             [&](std::size_t chunk, std::size_t begin, std::size_t end) {
               std::size_t* place = places.data() + chunk * dealing.num_buckets;
               for (std::size_t i = begin; i < end; ++i) {
                 const auto group = static_cast<std::uint32_t>(rows.groups[i]);
                 dealt[place[group >> dealing.shift]++] = {unsigned_time(times[i]),
                                                           static_cast<Row>(i), group};
               }
             });
  run_tasks(dealing.num_buckets, threads, [&](std::size_t b) {
    const std::size_t first_group = b << dealing.shift;
    const std::size_t end_group =
        std::min(first_group + (std::size_t{1} << dealing.shift), rows.num_groups);
    sort_bucket<Row>({dealt.get() + starts[b], starts[b + 1] - starts[b],
                      static_cast<std::uint32_t>(first_group), end_group - first_group,
                      order + starts[b]});
  });
}

template void group_order<std::uint32_t>(const GroupedRows&, const std::int64_t*,
                                         std::size_t, std::int64_t*);
template void group_order<std::uint64_t>(const GroupedRows&, const std::int64_t*,
                                         std::size_t, std::int64_t*);

void group_offsets(const GroupedRows& rows, std::size_t threads,
                   std::int64_t* offsets) {
  const std::size_t num_groups = rows.num_groups;
  // Each part counts for itself; adding up must not take longer than counting.
  const std::size_t worth = rows.num_rows / std::max(kChunkRows, 4 * num_groups);
  const std::size_t num_parts = std::max<std::size_t>(1, std::min(threads, worth));
  std::vector<std::int64_t> counts((num_parts - 1) * num_groups, 0);
  std::fill_n(offsets, num_groups + 1, 0);
  run_tasks(num_parts, threads, [&](std::size_t part) {
    std::int64_t* own =
        part == 0 ? offsets + 1 : counts.data() + (part - 1) * num_groups;
    const std::size_t end = rows.num_rows * (part + 1) / num_parts;
    for (std::size_t i = rows.num_rows * part / num_parts; i < end; ++i) {
      const auto group = static_cast<std::uint32_t>(rows.groups[i]);
      if (group >= num_groups) refuse_group();
      ++own[group];
    }
  });
  for (std::size_t g = 0; g < num_groups; ++g) {
    for (std::size_t p = 1; p < num_parts; ++p) {
      offsets[g + 1] += counts[(p - 1) * num_groups + g];
    }
    offsets[g + 1] += offsets[g];
  }
}

}  // namespace shortlist
