// The rows at positions of a shuffled epoch, computed one by one.
//
// Knows keys, sizes and numbers; knows nothing of sources, epochs or Python. Every
// number is checked: one out of range would be permuted without end.
//
// Sources: Black and Rogaway (2002), Ciphers with Arbitrary Finite Domains (cycle
// walking); Mitchell et al. (2022), Bandwidth-Optimal Random Shuffling for GPUs; Steele
// et al. (2014), Fast Splittable Pseudorandom Number Generators (the mixer).
#ifndef SHORTLIST_ROW_ORDER_H_
#define SHORTLIST_ROW_ORDER_H_

#include <cstddef>
#include <cstdint>
#include <string>

namespace shortlist {

constexpr std::size_t kOrderRounds = 8;

// A Feistel network on low_bits + high_bits bits, 1 to 32 each: the fewest that number
// `size` values, and 2 at least. What it moves out of 0 .. size - 1 it moves again.
struct RowNetwork {
  std::uint64_t keys[kOrderRounds];
  std::uint64_t size;
  std::uint64_t low_bits;
  std::uint64_t high_bits;
};

// Blocks of neighbouring rows in random order. Those behind the short one, which ends
// at position `after_gap`, begin `gap` rows earlier than if it were as long as they.
struct BlockOrder {
  std::uint64_t block;
  std::uint64_t gap;
  std::uint64_t after_gap;
  const std::int64_t* table;  // (network.size,) the block at each place, or null for
                              // the network's
  RowNetwork network;
};

// images[i] = first + the image of values[i] - first, which is below the size;
// backward, the value that it is the image of. `images` may be `values`. Every
// instruction set gives the same. Throws std::invalid_argument for one that
// instruction_sets() does not list or a network of other sizes, and std::out_of_range
// for a value that is not among those it moves.
void permute_rows(const RowNetwork& network, const std::int64_t* values, std::size_t n,
                  std::int64_t first, bool backward, std::int64_t* images,
                  const std::string& instruction_set = "");

// rows[i] = the row at position positions[i] of the blocks laid one after the other.
// `rows` may be `positions`. The rest is as above.
void rows_of_blocks(const BlockOrder& blocks, const std::int64_t* positions,
                    std::size_t n, std::int64_t* rows,
                    const std::string& instruction_set = "");

}  // namespace shortlist

#endif  // SHORTLIST_ROW_ORDER_H_
