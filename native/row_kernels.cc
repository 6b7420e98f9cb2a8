#include "row_kernels.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define SHORTLIST_X86 1
#include <immintrin.h>
#endif

// A function of vectors is always inlined: no call ever passes one, so the warning on
// how calls pass them on other machines does not matter.
#pragma GCC diagnostic ignored "-Wpsabi"

#define SHORTLIST_INLINE SHORTLIST_TARGET static inline __attribute__((always_inline))

#define SHORTLIST_NAMESPACE portable
#define SHORTLIST_TARGET
#define SHORTLIST_LANES 4
#include "row_lanes.h"
#include "row_lookup_loops.h"
#include "row_update_loops.h"
#undef SHORTLIST_NAMESPACE
#undef SHORTLIST_TARGET
#undef SHORTLIST_LANES

#ifdef SHORTLIST_X86
#define SHORTLIST_NAMESPACE avx2
#define SHORTLIST_TARGET __attribute__((target("avx2,fma,f16c")))
#define SHORTLIST_LANES 8
#include "row_lanes.h"
#include "row_lookup_loops.h"
#include "row_update_loops.h"
#undef SHORTLIST_NAMESPACE
#undef SHORTLIST_TARGET
#undef SHORTLIST_LANES

#define SHORTLIST_NAMESPACE avx512
#define SHORTLIST_TARGET __attribute__((target("avx512f,avx2,fma,f16c")))
#define SHORTLIST_LANES 16
#include "row_lanes.h"
#include "row_lookup_loops.h"
#include "row_update_loops.h"
#undef SHORTLIST_NAMESPACE
#undef SHORTLIST_TARGET
#undef SHORTLIST_LANES
#endif

namespace shortlist {
namespace {

#define SHORTLIST_MOVES(SET, KIND)                                                   \
  {SET::move<RuleKind::KIND, SET::Float32>, SET::move<RuleKind::KIND, SET::Float16>, \
   SET::move<RuleKind::KIND, SET::Bfloat16>}
#define SHORTLIST_KERNELS(SET)                                                \
  {                                                                           \
    #SET,                                                                     \
        {SET::gather<SET::Float32>, SET::gather<SET::Float16>,                \
         SET::gather<SET::Bfloat16>},                                         \
        {SET::combine<SET::Float32>, SET::combine<SET::Float16>,              \
         SET::combine<SET::Bfloat16>},                                        \
    {                                                                         \
      SHORTLIST_MOVES(SET, kSgd), SHORTLIST_MOVES(SET, kAdagrad),             \
          SHORTLIST_MOVES(SET, kRowwiseAdagrad), SHORTLIST_MOVES(SET, kAdam), \
          SHORTLIST_MOVES(SET, kFtrl)                                         \
    }                                                                         \
  }

constexpr RowKernels kPortable = SHORTLIST_KERNELS(portable);
#ifdef SHORTLIST_X86
constexpr RowKernels kAvx2 = SHORTLIST_KERNELS(avx2);
constexpr RowKernels kAvx512 = SHORTLIST_KERNELS(avx512);
#endif

const RowKernels* find(const std::string& name) {
  const bool any = name.empty();
#ifdef SHORTLIST_X86
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  if (avx2 && __builtin_cpu_supports("avx512f") && (any || name == "avx512")) {
    return &kAvx512;
  }
  if (avx2 && (any || name == "avx2")) return &kAvx2;
#endif
  return any || name == "portable" ? &kPortable : nullptr;
}

void fill_powers(double base, double* powers) {
  for (int i = 0; i < 32; ++i, base *= base) powers[i] = base;
}

}  // namespace

Movement::Movement(const UpdatedTable& updated) : table(updated) {
  const Rule& rule = table.rule;
  random_start = static_cast<std::uint32_t>(table.step) * 0xC2B2AE3Du + table.seed;
  rate = static_cast<float>(table.learning_rate);
  epsilon = static_cast<float>(rule.epsilon);
  clip = static_cast<float>(rule.clip);
  l2 = static_cast<float>(rule.l2);
  decay = rate * static_cast<float>(rule.weight_decay);
  adam_rate = static_cast<float>(table.adam_rate);
  grow_1 = static_cast<float>(1 - rule.beta_1);
  grow_2 = static_cast<float>(1 - rule.beta_2);
  fill_powers(rule.beta_1, beta_1_powers);
  fill_powers(rule.beta_2, beta_2_powers);
  power = static_cast<float>(-rule.learning_rate_power);
  l1 = static_cast<float>(rule.l1);
  l2_ftrl =
      static_cast<float>(rule.l2_ftrl) + static_cast<float>(rule.beta) / (2 * rate);
  shrinkage = static_cast<float>(2 * rule.l2_shrinkage);
}

const RowKernels& row_kernels(const std::string& instruction_set) {
  static const RowKernels* const best = find("");
  if (instruction_set.empty()) return *best;
  if (const RowKernels* kernels = find(instruction_set)) return *kernels;
  throw std::invalid_argument(
      "The instruction set must be one that this processor runs. Received: '" +
      instruction_set + "'. See instruction_sets() for the list.");
}

}  // namespace shortlist
