// Dot products of a few float32 queries with a few float32 items.
//
// Knows vectors and instruction sets; knows nothing of ranking, threads or Python.
//
// Every pair is accumulated in 16 lanes and reduced by one fixed tree, so a score does
// not depend on which tile computed it. Tiles that fuse multiply and add (AVX2 and
// AVX-512) agree bit for bit; the portable tile rounds twice and may differ in the last
// bits.
#ifndef SHORTLIST_DOT_TILE_H_
#define SHORTLIST_DOT_TILE_H_

#include <cstddef>
#include <string>
#include <vector>

namespace shortlist {

// No tile has more than this many pairs.
constexpr std::size_t kMaxTilePairs = 16;

// Computes scores[i * items + j] = query_rows[i] . item_rows[j].
struct DotTile {
  std::size_t queries;
  std::size_t items;
  void (*run)(const float* const* query_rows, const float* const* item_rows,
              std::size_t dim, float* scores);
};

struct DotKernel {
  const char* instruction_set;
  DotTile one_query;
  DotTile many_queries;
};

// Names of the instruction sets that this processor runs, best first.
std::vector<std::string> instruction_sets();

// The kernel of that name, or the best one for "". Throws std::invalid_argument for a
// name that instruction_sets() does not list.
const DotKernel& dot_kernel(const std::string& instruction_set);

// Scores `num_queries` consecutive queries against `num_items` consecutive items, both
// of `dim` floats: scores[i * stride + j] = queries[i] . items[j].
void dot_block(const DotKernel& kernel, const float* queries, std::size_t num_queries,
               const float* items, std::size_t num_items, std::size_t dim,
               float* scores, std::size_t stride);

}  // namespace shortlist

#endif  // SHORTLIST_DOT_TILE_H_
