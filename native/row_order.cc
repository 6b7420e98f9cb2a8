#include "row_order.h"

#include <algorithm>
#include <stdexcept>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define SHORTLIST_X86 1
#endif

namespace shortlist {
namespace {

// Values a loop works on at a time: they stay in the first level cache.
constexpr std::size_t kAtOnce = 512;

inline __attribute__((always_inline)) std::uint64_t mix(std::uint64_t value,
                                                        std::uint64_t key) {
  value = (value ^ key) * 0xBF58476D1CE4E5B9u;
  return (value ^ (value >> 29)) * 0x94D049BB133111EBu;
}

// One pass through the network: each half is hidden by a hash of the other. Simple
// enough for the compiler to make vectors of it, whatever the instructions.
template <bool kBackward>
inline __attribute__((always_inline)) void pass(const RowNetwork& network,
                                                std::uint64_t* values, std::size_t n) {
  const std::uint64_t low_bits = network.low_bits;
  const std::uint64_t low_mask = (std::uint64_t{1} << low_bits) - 1;
  const std::uint64_t low_shift = 64 - low_bits;
  const std::uint64_t high_shift = 64 - network.high_bits;
  std::uint64_t keys[kOrderRounds];
  std::copy(network.keys, network.keys + kOrderRounds, keys);
  for (std::size_t i = 0; i < n; ++i) {
    std::uint64_t low = values[i] & low_mask;
    std::uint64_t high = values[i] >> low_bits;
#pragma GCC unroll 4
    for (std::size_t pair = 0; pair < kOrderRounds; pair += 2) {
      if (kBackward) {
        low ^= mix(high, keys[kOrderRounds - 1 - pair]) >> low_shift;
        high ^= mix(low, keys[kOrderRounds - 2 - pair]) >> high_shift;
      } else {
        high ^= mix(low, keys[pair]) >> high_shift;
        low ^= mix(high, keys[pair + 1]) >> low_shift;
      }
    }
    values[i] = (high << low_bits) | low;
  }
}

using Pass = void (*)(const RowNetwork& network, std::uint64_t* values, std::size_t n);

struct Passes {
  const char* instruction_set;
  Pass forward;
  Pass backward;
};

#define SHORTLIST_PASSES(NAME, TARGET)                                          \
  TARGET void NAME##_forward(const RowNetwork& network, std::uint64_t* values,  \
                             std::size_t n) {                                   \
    pass<false>(network, values, n);                                            \
  }                                                                             \
  TARGET void NAME##_backward(const RowNetwork& network, std::uint64_t* values, \
                              std::size_t n) {                                  \
    pass<true>(network, values, n);                                             \
  }                                                                             \
  constexpr Passes k_##NAME = {#NAME, NAME##_forward, NAME##_backward};

SHORTLIST_PASSES(portable, )
#ifdef SHORTLIST_X86
SHORTLIST_PASSES(avx2, __attribute__((target("avx2"))))
// With the 64-bit multiplication of vectors.
SHORTLIST_PASSES(avx512, __attribute__((target("avx512f,avx512dq,avx512vl,avx2"))))
#endif

const Passes& find(const std::string& name) {
  const bool any = name.empty();
#ifdef SHORTLIST_X86
  const bool multiplies = __builtin_cpu_supports("avx512f") &&
                          __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512vl");
  if (multiplies && (any || name == "avx512")) return k_avx512;
  // A processor may have avx512f alone: the same numbers, from narrower vectors.
  const bool wide = name == "avx512" && __builtin_cpu_supports("avx512f");
  if (__builtin_cpu_supports("avx2") && (any || wide || name == "avx2")) return k_avx2;
#endif
  if (any || name == "portable") return k_portable;
  throw std::invalid_argument(
      "The instruction set must be one that this processor runs. Received: '" + name +
      "'. See instruction_sets() for the list.");
}

// Moves `values` until each is below the size.
void walk(Pass pass, const RowNetwork& network, std::uint64_t* values, std::size_t n) {
  std::uint64_t moving[kAtOnce];
  std::uint32_t places[kAtOnce];
  pass(network, values, n);
  std::size_t left = 0;
  for (std::size_t i = 0; i < n; ++i) {
    moving[left] = values[i];
    places[left] = static_cast<std::uint32_t>(i);
    left += values[i] >= network.size;
  }
  while (left > 0) {
    pass(network, moving, left);
    std::size_t kept = 0;
    for (std::size_t i = 0; i < left; ++i) {
      const std::uint64_t value = moving[i];
      const std::uint32_t place = places[i];
      values[place] = value;
      moving[kept] = value;
      places[kept] = place;
      kept += value >= network.size;
    }
    left = kept;
  }
}

void check(const RowNetwork& network) {
  const std::uint64_t bits = network.low_bits + network.high_bits;
  const bool fits = network.size >= 1 && network.size <= std::uint64_t{1} << 62 &&
                    network.low_bits == bits / 2 && bits >= 2 && bits <= 62 &&
                    (network.size - 1) >> bits == 0 &&
                    (bits == 2 || (network.size - 1) >> (bits - 1) != 0);
  if (!fits) {
    throw std::invalid_argument(
        "A network must be of 1 to 2^62 values, and of the bits that number them.");
  }
}

// A value is out of range if it, or the largest one less it, has the highest bit: sums
// that every instruction set has for vectors, and comparisons not.
[[noreturn]] void refuse_value() {
  throw std::out_of_range("A value must be one of those that are shuffled.");
}

// The block and the place within it of each of `n` places.
void divide(std::uint64_t block, std::uint64_t* places, std::uint64_t* within,
            std::size_t n) {
  const std::uint64_t mask = block - 1;
  if ((block & mask) == 0) {  // a division takes ten times as long as a shift
    const int bits = __builtin_ctzll(block);
    for (std::size_t i = 0; i < n; ++i) {
      within[i] = places[i] & mask;
      places[i] >>= bits;
    }
    return;
  }
  for (std::size_t i = 0; i < n; ++i) {
    within[i] = places[i] % block;
    places[i] /= block;
  }
}

// The number of rows of checked blocks.
std::uint64_t rows_of(const BlockOrder& blocks) {
  check(blocks.network);
  const std::uint64_t most = std::uint64_t{1} << 62;
  if (blocks.block == 0 || blocks.block > most / blocks.network.size ||
      blocks.gap >= blocks.block) {
    throw std::invalid_argument(
        "Blocks must have a row at least, and up to 2^62 together.");
  }
  return blocks.network.size * blocks.block - blocks.gap;
}

}  // namespace

void permute_rows(const RowNetwork& network, const std::int64_t* values, std::size_t n,
                  std::int64_t first, bool backward, std::int64_t* images,
                  const std::string& instruction_set) {
  check(network);
  const Passes& passes = find(instruction_set);
  const Pass pass = backward ? passes.backward : passes.forward;
  const auto offset = static_cast<std::uint64_t>(first);
  std::uint64_t block[kAtOnce];
  for (std::size_t begin = 0; begin < n; begin += kAtOnce) {
    const std::size_t count = std::min(n - begin, kAtOnce);
    std::uint64_t outside = 0;
    for (std::size_t i = 0; i < count; ++i) {
      block[i] = static_cast<std::uint64_t>(values[begin + i]) - offset;
      outside |= block[i] | (network.size - 1 - block[i]);
    }
    if (outside >> 63 != 0) refuse_value();
    walk(pass, network, block, count);
    for (std::size_t i = 0; i < count; ++i) {
      images[begin + i] = static_cast<std::int64_t>(block[i] + offset);
    }
  }
}

void rows_of_blocks(const BlockOrder& blocks, const std::int64_t* positions,
                    std::size_t n, std::int64_t* rows,
                    const std::string& instruction_set) {
  const std::uint64_t num_rows = rows_of(blocks);
  const Pass pass = find(instruction_set).forward;
  std::uint64_t places[kAtOnce];
  std::uint64_t within[kAtOnce];
  for (std::size_t begin = 0; begin < n; begin += kAtOnce) {
    const std::size_t count = std::min(n - begin, kAtOnce);
    std::uint64_t outside = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const auto position = static_cast<std::uint64_t>(positions[begin + i]);
      outside |= position | (num_rows - 1 - position);
      places[i] = position + (position >= blocks.after_gap ? blocks.gap : 0);
    }
    if (outside >> 63 != 0) refuse_value();
    divide(blocks.block, places, within, count);
    if (blocks.table == nullptr) {
      walk(pass, blocks.network, places, count);
    } else {
      for (std::size_t i = 0; i < count; ++i) {
        places[i] = static_cast<std::uint64_t>(blocks.table[places[i]]);
      }
    }
    for (std::size_t i = 0; i < count; ++i) {
      rows[begin + i] = static_cast<std::int64_t>(places[i] * blocks.block + within[i]);
    }
  }
}

}  // namespace shortlist
