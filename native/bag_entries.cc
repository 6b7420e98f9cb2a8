#include "bag_entries.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace shortlist {
namespace {

// Negative ids wrap to large numbers: one comparison finds padding and bad ids.
template <typename Id>
bool inside(Id id, std::size_t num_rows) {
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(id)) < num_rows;
}

// The row of an id that is not padding.
template <typename Id>
std::uint32_t row_of(Id id, std::size_t num_rows, BagEntries& entries) {
  if (inside(id, num_rows)) return static_cast<std::uint32_t>(id);
  if (!entries.out_of_range) {
    entries.out_of_range = true;
    entries.first_out_of_range = static_cast<std::int64_t>(id);
  }
  return 0;
}

// Most features: one id per bag, no weights. False if one of them is padding.
template <typename Id>
bool read_one_each(const Id* ids, std::size_t count, std::size_t num_rows,
                   BagEntries& entries) {
  std::uint32_t* rows = entries.rows.data();
  bool all_inside = true;
  for (std::size_t i = 0; i < count; ++i) {
    rows[i] = static_cast<std::uint32_t>(ids[i]);
    all_inside &= inside(ids[i], num_rows);
  }
  if (all_inside) return true;
  for (std::size_t i = 0; i < count; ++i) {
    if (ids[i] == -1) {
      entries.out_of_range = false;
      return false;
    }
    rows[i] = row_of(ids[i], num_rows, entries);
  }
  return true;
}

// Turns the weights of one bag into coefficients.
void combine(Combiner combiner, float* coefficients, std::size_t count) {
  if (combiner == Combiner::kSum) return;
  float divisor = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const float weight = coefficients[i];
    divisor += combiner == Combiner::kMean ? weight : weight * weight;
  }
  if (combiner == Combiner::kSqrtn) divisor = std::sqrt(divisor);
  const float inverse = divisor != 0 ? 1 / divisor : 0;
  for (std::size_t i = 0; i < count; ++i) coefficients[i] *= inverse;
}

std::invalid_argument falling_offsets() {
  return std::invalid_argument(
      "Offsets must rise from 0 to the number of ids, and bags hold less than 2**32.");
}

template <typename Id>
void read_as(const Bags& bags, std::size_t num_rows, std::size_t begin, std::size_t end,
             BagEntries& entries) {
  const Id* ids = static_cast<const Id*>(bags.ids);
  const auto start = [&](std::size_t bag) {
    return bags.offsets ? static_cast<std::size_t>(bags.offsets[bag])
                        : bag * bags.length;
  };
  const std::size_t range_end = start(end);
  const std::size_t most = num_ids_of(bags, begin, end);
  if (entries.rows.size() < most) {
    entries.rows.resize(most);
    entries.coefficients.resize(most);
  }
  if (entries.ends.size() < end - begin) entries.ends.resize(end - begin);
  entries.out_of_range = false;
  const bool single = !bags.offsets && bags.length == 1 && !bags.weights;
  if (single && read_one_each(ids + begin, most, num_rows, entries)) {
    entries.one_each = true;
    entries.size = most;
    return;
  }
  entries.one_each = false;
  std::size_t size = 0;
  for (std::size_t bag = begin; bag < end; ++bag) {
    const std::size_t first = size;
    const std::size_t last = start(bag + 1);
    // Entries that offsets fall back to would be written past the end.
    if (start(bag) > last || last > range_end) throw falling_offsets();
    for (std::size_t i = start(bag); i < last; ++i) {
      if (ids[i] == -1) continue;
      entries.rows[size] = row_of(ids[i], num_rows, entries);
      entries.coefficients[size] = bags.weights ? bags.weights[i] : 1.0f;
      ++size;
    }
    combine(bags.combiner, entries.coefficients.data() + first, size - first);
    entries.ends[bag - begin] = static_cast<std::uint32_t>(size);
  }
  entries.size = size;
}

}  // namespace

std::size_t num_ids_of(const Bags& bags, std::size_t begin, std::size_t end) {
  std::size_t first = begin * bags.length, last = end * bags.length;
  if (bags.offsets) {  // negative ones wrap to numbers beyond all ids
    first = static_cast<std::size_t>(bags.offsets[begin]);
    last = static_cast<std::size_t>(bags.offsets[end]);
  }
  const std::size_t most = std::numeric_limits<std::uint32_t>::max();
  if (first > last || last > bags.num_ids || last - first > most) {
    throw falling_offsets();
  }
  return last - first;
}

void split_bags(const Bags& bags, std::size_t feature, std::size_t ids,
                std::vector<BagRange>& ranges) {
  if (bags.num_bags == 0) return;
  // Empty bags are work too.
  const std::size_t work = std::max(bags.num_ids, bags.num_bags);
  const std::size_t parts = std::min(bags.num_bags, (work + ids - 1) / ids);
  for (std::size_t i = 0; i < parts; ++i) {
    ranges.push_back(
        {feature, bags.num_bags * i / parts, bags.num_bags * (i + 1) / parts});
  }
}

void BagEntries::read(const Bags& bags, std::size_t num_rows, std::size_t begin,
                      std::size_t end) {
  if (bags.wide_ids) {
    read_as<std::int64_t>(bags, num_rows, begin, end, *this);
  } else {
    read_as<std::int32_t>(bags, num_rows, begin, end, *this);
  }
}

}  // namespace shortlist
