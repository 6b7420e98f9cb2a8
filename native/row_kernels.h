// The inner loops over rows, and which instructions they use.
//
// Knows rows, number types and update rules; knows nothing of bags, threads or Python.
// A row gets the same bits from one instruction set whatever else is in the call.
#ifndef SHORTLIST_ROW_KERNELS_H_
#define SHORTLIST_ROW_KERNELS_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "embedding_types.h"

namespace shortlist {

// A rule in float32, as the loops read it.
struct Movement {
  explicit Movement(const UpdatedTable& table);

  UpdatedTable table;
  std::uint32_t random_start;  // of the draws of this step
  float rate;
  float epsilon;
  float clip;  // infinity for no limit
  float l2;
  float decay;  // learning rate times weight decay
  // Adam
  float adam_rate;
  float grow_1;  // 1 - beta_1
  float grow_2;
  double beta_1_powers[32];  // beta_1 ^ (2 ^ i)
  double beta_2_powers[32];
  // FTRL
  float power;
  float l1;
  float l2_ftrl;    // with the share of `beta`
  float shrinkage;  // twice l2_shrinkage
};

// Entries of one table grouped by row: group g is entries[order[p]] for p from
// starts[g] to starts[g + 1].
struct RowGroups {
  const Entry* entries;
  const std::uint32_t* order;
  const std::uint32_t* starts;
  std::size_t num_groups;
};

struct RowKernels {
  const char* instruction_set;
  // out[i] = rows[ids[i]], as float32.
  void (*gather[kRowTypes])(const Rows& rows, const std::uint32_t* ids,
                            std::size_t count, float* out);
  // out[i] = sum of rows[ids[p]] * coefficients[p], p from ends[i - 1] to ends[i].
  void (*combine[kRowTypes])(const Rows& rows, const std::uint32_t* ids,
                             const float* coefficients, const std::uint32_t* ends,
                             std::size_t num_bags, float* out);
  // Moves each row of `groups` by the sum of its gradients, added up in order.
  void (*move[kRuleKinds][kRowTypes])(const Movement& movement,
                                      const RowGroups& groups);
};

// The kernels of that instruction set, or the best ones for "". Throws
// std::invalid_argument for a name that instruction_sets() does not list.
const RowKernels& row_kernels(const std::string& instruction_set);

}  // namespace shortlist

#endif  // SHORTLIST_ROW_KERNELS_H_
