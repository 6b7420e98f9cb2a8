#include "row_groups.h"

#include <algorithm>
#include <limits>
#include <stdexcept>

#include "bag_entries.h"
#include "parallel.h"

namespace shortlist {
namespace {

constexpr std::size_t kIdsAtOnce = 8192;
// A bucket of this size is grouped in the first level cache.
constexpr std::size_t kBucketEntries = 256;
constexpr unsigned kMaxBits = 11;
constexpr std::size_t kNoTable = std::numeric_limits<std::size_t>::max();
// Entries that a thread keeps memory for: 64 MiB.
constexpr std::size_t kKeptEntries = 1 << 22;

// Fibonacci hashing: the high bits are those that mix.
std::uint32_t hash(std::uint32_t row) { return row * 0x9E3779B1u; }

// How the rows of a table are dealt out to 2^bits buckets: neighbours together, which
// keeps a bucket within few pages (10M rows: 18.4 ms by hash, 16.4 ms by range), or by
// hash where the rows that users like best are neighbours.
struct Dealing {
  unsigned bits;
  unsigned shift;
  bool by_hash;

  std::uint32_t bucket_of(std::uint32_t row) const {
    if (!by_hash) return row >> shift;
    return bits == 0 ? 0 : hash(row) >> (32 - bits);
  }
};

struct Part {
  BagRange range;
  std::size_t table;
  std::size_t first;   // of its entries before they are dealt out
  std::size_t counts;  // of its counters, one for each bucket of the table
  std::size_t size;
};

// Counts the entries of one part in each bucket once more.
void count_part(const Entry* entries, std::size_t size, const Dealing& dealing,
                std::uint32_t* counts) {
  std::fill_n(counts, std::size_t{1} << dealing.bits, 0);
  for (std::size_t p = 0; p < size; ++p) ++counts[dealing.bucket_of(entries[p].row)];
}

// Whether one bucket of a table holds so much that other threads would wait for it.
bool is_crowded(const std::vector<const Part*>& parts, const Dealing& dealing,
                const std::vector<std::uint32_t>& counts) {
  std::size_t largest = 0, total = 0;
  for (std::size_t b = 0; b < std::size_t{1} << dealing.bits; ++b) {
    std::size_t size = 0;
    for (const Part* part : parts) size += counts[part->counts + b];
    largest = std::max(largest, size);
    total += size;
  }
  return largest > 4 * kBucketEntries && largest > total / 16;
}

// Writes the entries of one part and counts those of each bucket.
void read_part(const Backpropagated& feature, const UpdatedTable& table,
               const Dealing& dealing, Part& part, Entry* out, std::uint32_t* counts) {
  thread_local BagEntries read;
  const std::size_t dim = table.rows.dim;
  read.read(feature.bags, table.rows.num_rows, part.range.begin, part.range.end);
  part.size = read.size;
  std::size_t p = 0;
  for (std::size_t bag = part.range.begin; bag < part.range.end; ++bag) {
    const float* gradient = feature.gradients + bag * dim;
    const std::size_t i = bag - part.range.begin;
    const std::size_t end = read.one_each ? i + 1 : read.ends[i];
    for (; p < end; ++p) {
      const float coefficient = read.one_each ? 1.0f : read.coefficients[p];
      out[p] = {gradient, read.rows[p], coefficient * feature.scale};
      ++counts[dealing.bucket_of(read.rows[p])];
    }
  }
}

}  // namespace

Entry* EntrySpace::at_least(std::size_t count) {
  if (count > size_ || size_ > kKeptEntries) {
    entries_.reset();
    entries_.reset(new Entry[count]);
    size_ = count;
  }
  return entries_.get();
}

std::vector<Bucket> deal(const std::vector<UpdatedTable>& tables,
                         const std::vector<Backpropagated>& features,
                         std::size_t threads) {
  std::size_t most = 0;
  for (const UpdatedTable& table : tables) most = std::max(most, table.index + 1);
  std::vector<std::size_t> place(most, kNoTable);
  for (std::size_t t = 0; t < tables.size(); ++t) place[tables[t].index] = t;
  const auto table_of = [&](const Bags& bags) {
    return bags.table < most ? place[bags.table] : kNoTable;
  };

  std::vector<std::size_t> ids(tables.size(), 0);
  for (const Backpropagated& feature : features) {
    const std::size_t table = table_of(feature.bags);
    if (table != kNoTable) ids[table] += feature.bags.num_ids;
  }
  std::vector<Dealing> dealings(tables.size(), {0, 0, false});
  for (std::size_t t = 0; t < tables.size(); ++t) {
    unsigned& bits = dealings[t].bits;
    unsigned& shift = dealings[t].shift;
    while (bits < kMaxBits && ids[t] >> bits > kBucketEntries) ++bits;
    while ((tables[t].rows.num_rows - 1) >> shift >> bits) ++shift;
  }

  std::vector<Part> parts;
  std::size_t num_entries = 0, num_counts = 0;
  for (std::size_t f = 0; f < features.size(); ++f) {
    const Bags& bags = features[f].bags;
    const std::size_t table = table_of(bags);
    if (table == kNoTable) continue;
    std::vector<BagRange> ranges;
    split_bags(bags, f, kIdsAtOnce, ranges);
    for (const BagRange& range : ranges) {
      parts.push_back({range, table, num_entries, num_counts, 0});
      num_entries += num_ids_of(bags, range.begin, range.end);
      num_counts += std::size_t{1} << dealings[table].bits;
    }
  }

  if (num_entries > std::numeric_limits<std::uint32_t>::max()) {
    throw std::invalid_argument("An update must have less than 2**32 ids.");
  }
  thread_local EntrySpace read_space, dealt_space;
  Entry* const read = read_space.at_least(num_entries);
  Entry* const dealt = dealt_space.at_least(num_entries);
  std::vector<std::uint32_t> counts(num_counts, 0);
  run_tasks(parts.size(), threads, [&](std::size_t task) {
    Part& part = parts[task];
    read_part(features[part.range.feature], tables[part.table], dealings[part.table],
              part, read + part.first, counts.data() + part.counts);
  });

  std::vector<std::vector<const Part*>> parts_of(tables.size());
  for (const Part& part : parts) parts_of[part.table].push_back(&part);
  for (std::size_t t = 0; t < tables.size(); ++t) {
    dealings[t].by_hash = is_crowded(parts_of[t], dealings[t], counts);
  }
  run_tasks(parts.size(), threads, [&](std::size_t task) {
    const Part& part = parts[task];
    const Dealing& dealing = dealings[part.table];
    if (!dealing.by_hash) return;
    count_part(read + part.first, part.size, dealing, counts.data() + part.counts);
  });

  // Table by table and bucket by bucket, the parts in their order: counts become the
  // places of the first entries.
  std::vector<Bucket> buckets;
  std::size_t next = 0;
  for (std::size_t t = 0; t < tables.size(); ++t) {
    const Dealing& dealing = dealings[t];
    for (std::size_t b = 0; b < std::size_t{1} << dealing.bits; ++b) {
      const std::size_t begin = next;
      for (const Part* part : parts_of[t]) {
        std::uint32_t& count = counts[part->counts + b];
        const std::size_t size = count;
        count = static_cast<std::uint32_t>(next);
        next += size;
      }
      if (next == begin) continue;
      const unsigned shared = dealing.by_hash ? dealing.bits : 0;
      buckets.push_back({t, dealt + begin, next - begin, shared});
    }
  }
  run_tasks(parts.size(), threads, [&](std::size_t task) {
    const Part& part = parts[task];
    const Dealing& dealing = dealings[part.table];
    std::uint32_t* places = counts.data() + part.counts;
    const Entry* entries = read + part.first;
    for (std::size_t p = 0; p < part.size; ++p) {
      dealt[places[dealing.bucket_of(entries[p].row)]++] = entries[p];
    }
  });
  return buckets;
}

void GroupedBucket::group(const Bucket& bucket) {
  unsigned slot_bits = 4;
  while (std::size_t{1} << slot_bits < 2 * bucket.size) ++slot_bits;
  slots_.assign(std::size_t{1} << slot_bits, 0);
  const std::size_t mask = slots_.size() - 1;
  group_of_.resize(bucket.size);
  order_.resize(bucket.size);
  first_.clear();
  starts_.assign(1, 0);
  // starts_[g + 1] first counts the entries of group g.
  for (std::size_t i = 0; i < bucket.size; ++i) {
    const std::uint32_t row = bucket.entries[i].row;
    const std::uint64_t mixed = std::uint64_t{hash(row) << bucket.bits} << slot_bits;
    for (std::size_t slot = mixed >> 32;; slot = (slot + 1) & mask) {
      const std::uint32_t taken = slots_[slot];
      if (taken == 0) {
        first_.push_back(static_cast<std::uint32_t>(i));
        starts_.push_back(1);
        group_of_[i] = slots_[slot] = static_cast<std::uint32_t>(first_.size());
        break;
      }
      if (bucket.entries[first_[taken - 1]].row == row) {
        group_of_[i] = taken;
        ++starts_[taken];
        break;
      }
    }
  }
  const std::size_t num_groups = first_.size();
  for (std::size_t g = 1; g <= num_groups; ++g) starts_[g] += starts_[g - 1];
  // first_ becomes the place of the next entry of each group.
  std::copy_n(starts_.begin(), num_groups, first_.begin());
  for (std::size_t i = 0; i < bucket.size; ++i) {
    order_[first_[group_of_[i] - 1]++] = static_cast<std::uint32_t>(i);
  }
  groups_ = {bucket.entries, order_.data(), starts_.data(), num_groups};
}

}  // namespace shortlist
