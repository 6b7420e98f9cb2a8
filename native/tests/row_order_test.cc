// Orders of rows of all sizes around powers of two, by every instruction set, from
// memory without room to spare, for the sanitizers. Checks what needs no oracle: a map
// is one-to-one, its inverse leads back, and all instruction sets give the same. The
// numbers themselves are checked in tests/data/load/test_order.py.
#include "../row_order.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "../dot_tile.h"

using namespace shortlist;

namespace {

using Values = std::vector<std::int64_t>;

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "failed: %s\n", what);
  std::exit(1);
}

RowNetwork network_of(std::uint64_t size) {
  std::uint64_t bits = 2;
  while ((size - 1) >> bits != 0) ++bits;
  RowNetwork network = {};
  for (std::size_t i = 0; i < kOrderRounds; ++i) {
    network.keys[i] = 0x9E3779B97F4A7C15u * (i + size);
  }
  network.size = size;
  network.low_bits = bits / 2;
  network.high_bits = bits - bits / 2;
  return network;
}

Values range(std::int64_t first, std::size_t n) {
  Values values(n);
  for (std::size_t i = 0; i < n; ++i) values[i] = first + static_cast<std::int64_t>(i);
  return values;
}

void check_permutation(std::uint64_t size, std::size_t n, std::int64_t first) {
  const RowNetwork network = network_of(size);
  const Values values = range(first, n);
  Values expected;
  for (const std::string& set : instruction_sets()) {
    Values images(n);
    permute_rows(network, values.data(), n, first, false, images.data(), set);
    if (expected.empty()) expected = images;
    require(images == expected, "instruction sets agree");
    Values back = images;  // in place
    permute_rows(network, back.data(), n, first, true, back.data(), set);
    require(back == values, "the inverse leads back");
    std::sort(images.begin(), images.end());
    require(std::adjacent_find(images.begin(), images.end()) == images.end(),
            "no image comes twice");
    const auto end = first + static_cast<std::int64_t>(size);
    require(n == 0 || (images.front() >= first && images.back() < end),
            "images stay inside");
  }
}

void check_blocks(std::uint64_t num_rows, std::uint64_t block, bool with_table) {
  const std::uint64_t count = (num_rows + block - 1) / block;
  const RowNetwork network = network_of(count);
  Values table = range(0, count);
  permute_rows(network, table.data(), count, 0, false, table.data());
  const auto last =
      std::find(table.begin(), table.end(), static_cast<std::int64_t>(count) - 1);
  const std::uint64_t gap = count * block - num_rows;
  const std::uint64_t end = static_cast<std::uint64_t>(last - table.begin() + 1);
  const BlockOrder blocks = {block, gap, end * block - gap,
                             with_table ? table.data() : nullptr, network};
  const Values positions = range(0, num_rows);
  Values expected;
  for (const std::int64_t number : table) {
    const std::uint64_t begin = static_cast<std::uint64_t>(number) * block;
    for (std::uint64_t row = begin; row < std::min(begin + block, num_rows); ++row) {
      expected.push_back(static_cast<std::int64_t>(row));
    }
  }
  for (const std::string& set : instruction_sets()) {
    Values rows(num_rows);
    rows_of_blocks(blocks, positions.data(), num_rows, rows.data(), set);
    require(rows == expected, "blocks come one after the other");
  }
}

void check_unknown_set() {
  std::int64_t value = 0;
  try {
    permute_rows(network_of(9), &value, 1, 0, false, &value, "abacus");
  } catch (const std::invalid_argument&) {
    return;
  }
  require(false, "an unknown instruction set is refused");
}

template <typename Call>
bool is_refused(const Call& call) {
  try {
    call();
  } catch (const std::logic_error&) {  // invalid_argument or out_of_range
    return true;
  }
  return false;
}

// Sizes and values that would be moved about for ever.
void check_refusals() {
  std::int64_t image = 0;
  const auto moves = [&](const RowNetwork& network, std::int64_t value) {
    return !is_refused([&] { permute_rows(network, &value, 1, 5, false, &image); });
  };
  require(moves(network_of(9), 5) && moves(network_of(9), 13), "values are moved");
  for (const std::int64_t value : {4, 14, -1}) {
    require(!moves(network_of(9), value), "a value must be one of those moved");
  }
  RowNetwork wrong = network_of(9);
  for (const std::uint64_t size : {0, 17, 8}) {
    wrong.size = size;
    require(!moves(wrong, 5), "a network has the bits of its size");
  }
  wrong = network_of(9);
  wrong.low_bits = 0;
  require(!moves(wrong, 5), "both halves of a network have bits");
  std::int64_t row = 0;
  const auto finds = [&](const BlockOrder& blocks, std::int64_t position) {
    return !is_refused([&] { rows_of_blocks(blocks, &position, 1, &row); });
  };
  const RowNetwork three = network_of(3);
  require(finds({4, 2, 2, nullptr, three}, 9), "positions have rows");
  require(!finds({4, 2, 2, nullptr, three}, 10), "a position must be there");
  require(!finds({4, 2, 2, nullptr, three}, -1), "a position is not negative");
  require(!finds({0, 0, 0, nullptr, three}, 0), "a block has rows");
  require(!finds({4, 4, 0, nullptr, three}, 0), "the last block has a row");
}

}  // namespace

int main() {
  for (int bits = 1; bits <= 14; ++bits) {
    for (const int more : {-1, 0, 1}) {
      const auto size = static_cast<std::uint64_t>((1 << bits) + more);
      check_permutation(size, size, 7 * more);
    }
  }
  check_permutation(std::uint64_t{1} << 62, 1000, 0);
  check_permutation(5, 0, 0);
  std::printf("bijections of all sizes\n");
  for (const bool with_table : {false, true}) {
    check_blocks(1000, 64, with_table);
    check_blocks(1000, 7, with_table);
    check_blocks(4096, 1024, with_table);
    check_blocks(3, 9, with_table);
  }
  check_unknown_set();
  check_refusals();
  std::printf("orders of blocks\n");
  return 0;
}
