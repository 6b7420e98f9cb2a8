#include "dot_tile.h"

#include <algorithm>
#include <stdexcept>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define SHORTLIST_X86 1
#include <immintrin.h>
#endif

namespace shortlist {
namespace {

constexpr std::size_t kLanes = 16;

// The reduction tree that the vector tiles follow too: halves, then neighbours.
float reduce(const float* lanes) {
  float s[8];
  for (std::size_t i = 0; i < 8; ++i) s[i] = lanes[i] + lanes[i + 8];
  return ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
}

void portable_tile(const float* const* query_rows, const float* const* item_rows,
                   std::size_t dim, float* scores) {
  const float* query = query_rows[0];
  const float* item = item_rows[0];
  float lanes[kLanes] = {};
  std::size_t d = 0;
  for (; d + kLanes <= dim; d += kLanes) {
    for (std::size_t i = 0; i < kLanes; ++i) lanes[i] += query[d + i] * item[d + i];
  }
  for (std::size_t i = 0; d + i < dim; ++i) lanes[i] += query[d + i] * item[d + i];
  scores[0] = reduce(lanes);
}

constexpr DotKernel kPortable = {
    "portable", {1, 1, portable_tile}, {1, 1, portable_tile}};

#ifdef SHORTLIST_X86

#define SHORTLIST_AVX2 __attribute__((target("avx2,fma")))
#define SHORTLIST_AVX512 __attribute__((target("avx512f,avx2,fma")))

// Sums of four 8-lane vectors, in the order of reduce().
SHORTLIST_AVX2 inline __m128 reduce_four(__m256 a, __m256 b, __m256 c, __m256 d) {
  __m256 sums = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
  return _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps(sums, 1));
}

// Unrolling keeps the accumulators below in registers: without it GCC stores them all
// in every step.

// A tile is always four pairs: 1 x 4 or 2 x 2, eight accumulators of eight lanes.
template <int Q, int N>
SHORTLIST_AVX2 void avx2_tile(const float* const* query_rows,
                              const float* const* item_rows, std::size_t dim,
                              float* scores) {
  static_assert(Q * N == 4, "one reduce_four per tile");
  __m256 low[4], high[4];
#pragma GCC unroll 4
  for (int p = 0; p < 4; ++p) low[p] = high[p] = _mm256_setzero_ps();
  std::size_t d = 0;
  for (; d + kLanes <= dim; d += kLanes) {
#pragma GCC unroll 4
    for (int p = 0; p < 4; ++p) {
      const float* query = query_rows[p / N] + d;
      const float* item = item_rows[p % N] + d;
      low[p] = _mm256_fmadd_ps(_mm256_loadu_ps(query), _mm256_loadu_ps(item), low[p]);
      high[p] = _mm256_fmadd_ps(_mm256_loadu_ps(query + 8), _mm256_loadu_ps(item + 8),
                                high[p]);
    }
  }
  if (d < dim) {
    const __m256i left = _mm256_set1_epi32(static_cast<int>(dim - d));
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i low_mask = _mm256_cmpgt_epi32(left, lane);
    const __m256i high_mask =
        _mm256_cmpgt_epi32(left, _mm256_add_epi32(lane, _mm256_set1_epi32(8)));
#pragma GCC unroll 4
    for (int p = 0; p < 4; ++p) {
      const float* query = query_rows[p / N] + d;
      const float* item = item_rows[p % N] + d;
      low[p] = _mm256_fmadd_ps(_mm256_maskload_ps(query, low_mask),
                               _mm256_maskload_ps(item, low_mask), low[p]);
      high[p] = _mm256_fmadd_ps(_mm256_maskload_ps(query + 8, high_mask),
                                _mm256_maskload_ps(item + 8, high_mask), high[p]);
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < 4; ++p) low[p] = _mm256_add_ps(low[p], high[p]);
  _mm_storeu_ps(scores, reduce_four(low[0], low[1], low[2], low[3]));
}

SHORTLIST_AVX512 inline __m256 fold(__m512 lanes) {
  __m256d high = _mm512_extractf64x4_pd(_mm512_castps_pd(lanes), 1);
  return _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm256_castpd_ps(high));
}

// Q x 4 pairs: each loaded item vector serves Q queries.
template <int Q>
SHORTLIST_AVX512 void avx512_tile(const float* const* query_rows,
                                  const float* const* item_rows, std::size_t dim,
                                  float* scores) {
  __m512 sums[Q][4];
#pragma GCC unroll 4
  for (int i = 0; i < Q; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) sums[i][j] = _mm512_setzero_ps();
  }
  for (std::size_t d = 0; d < dim; d += kLanes) {
    const std::size_t left = std::min(dim - d, kLanes);
    const auto mask = static_cast<__mmask16>((1u << left) - 1u);
    __m512 item[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) item[j] = _mm512_maskz_loadu_ps(mask, item_rows[j] + d);
#pragma GCC unroll 4
    for (int i = 0; i < Q; ++i) {
      const __m512 query = _mm512_maskz_loadu_ps(mask, query_rows[i] + d);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        sums[i][j] = _mm512_fmadd_ps(query, item[j], sums[i][j]);
      }
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < Q; ++i) {
    _mm_storeu_ps(scores + 4 * i, reduce_four(fold(sums[i][0]), fold(sums[i][1]),
                                              fold(sums[i][2]), fold(sums[i][3])));
  }
}

constexpr DotKernel kAvx2 = {"avx2", {1, 4, avx2_tile<1, 4>}, {2, 2, avx2_tile<2, 2>}};
constexpr DotKernel kAvx512 = {
    "avx512", {1, 4, avx512_tile<1>}, {4, 4, avx512_tile<4>}};

#endif  // SHORTLIST_X86

// Best first; the portable kernel is always the last.
std::vector<const DotKernel*> supported_kernels() {
  std::vector<const DotKernel*> kernels;
#ifdef SHORTLIST_X86
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && __builtin_cpu_supports("avx512f")) kernels.push_back(&kAvx512);
  if (avx2) kernels.push_back(&kAvx2);
#endif
  kernels.push_back(&kPortable);
  return kernels;
}

}  // namespace

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const DotKernel* kernel : supported_kernels()) {
    names.emplace_back(kernel->instruction_set);
  }
  return names;
}

const DotKernel& dot_kernel(const std::string& instruction_set) {
  static const std::vector<const DotKernel*> kernels = supported_kernels();
  if (instruction_set.empty()) return *kernels.front();
  for (const DotKernel* kernel : kernels) {
    if (instruction_set == kernel->instruction_set) return *kernel;
  }
  throw std::invalid_argument(
      "The instruction set must be one that this processor runs. Received: '" +
      instruction_set + "'. See instruction_sets() for the list.");
}

void dot_block(const DotKernel& kernel, const float* queries, std::size_t num_queries,
               const float* items, std::size_t num_items, std::size_t dim,
               float* scores, std::size_t stride) {
  const float* query_rows[kMaxTilePairs];
  const float* item_rows[kMaxTilePairs];
  float tile_scores[kMaxTilePairs];
  for (std::size_t q = 0; q < num_queries;) {
    const bool last = num_queries - q == 1;
    const DotTile& tile = last ? kernel.one_query : kernel.many_queries;
    const std::size_t rows = std::min(tile.queries, num_queries - q);
    // An incomplete tile repeats its last row; the copies' scores are dropped.
    for (std::size_t i = 0; i < tile.queries; ++i) {
      query_rows[i] = queries + (q + std::min(i, rows - 1)) * dim;
    }
    for (std::size_t n = 0; n < num_items; n += tile.items) {
      const std::size_t columns = std::min(tile.items, num_items - n);
      for (std::size_t j = 0; j < tile.items; ++j) {
        item_rows[j] = items + (n + std::min(j, columns - 1)) * dim;
      }
      tile.run(query_rows, item_rows, dim, tile_scores);
      for (std::size_t i = 0; i < rows; ++i) {
        std::copy_n(tile_scores + i * tile.items, columns,
                    scores + (q + i) * stride + n);
      }
    }
    q += rows;
  }
}

}  // namespace shortlist
