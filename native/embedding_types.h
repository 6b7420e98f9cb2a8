// The arguments of the embedding kernels: tables, bags of ids and update rules.
//
// Knows memory layouts; knows no arithmetic, threads or Python. Types and sizes are
// checked by the caller (embedding_bindings.cc); ids and offsets by the kernels.
#ifndef SHORTLIST_EMBEDDING_TYPES_H_
#define SHORTLIST_EMBEDDING_TYPES_H_

#include <cstddef>
#include <cstdint>

namespace shortlist {

// Number types of rows, in the order of the arrays of functions in RowKernels.
enum class RowType { kFloat32, kFloat16, kBfloat16 };
constexpr std::size_t kRowTypes = 3;

enum class Combiner { kSum, kMean, kSqrtn };

enum class RuleKind { kSgd, kAdagrad, kRowwiseAdagrad, kAdam, kFtrl };
constexpr std::size_t kRuleKinds = 5;

constexpr std::size_t kMaxDim = 1024;
// Rows are numbered in 32 bits, and ids of int32 name them all.
constexpr std::int64_t kMaxRows = 2147483647;

struct Rows {
  void* values;  // (num_rows, dim)
  std::size_t num_rows;
  std::size_t dim;
  RowType type;
};

// The ids of one feature: bag i is the ids from offsets[i] to offsets[i + 1], or
// `length` ids from i * length on where there are no offsets. An id of -1 is padding.
struct Bags {
  std::size_t table;
  const void* ids;
  bool wide_ids;  // int64, not int32
  std::size_t num_ids;
  std::size_t num_bags;
  std::size_t length;
  const std::int64_t* offsets;
  const float* weights;  // null for weights of 1
  Combiner combiner;
};

// The hyperparameters of src/shortlist/embeddings/rules.py.
struct Rule {
  RuleKind kind;
  double epsilon;
  double beta_1;
  double beta_2;
  double learning_rate_power;
  double l1;
  double l2_ftrl;
  double l2_shrinkage;
  double beta;
  double clip;  // infinity for no limit
  double l2;
  double weight_decay;
};

// One table and how its touched rows move in this step.
struct UpdatedTable {
  std::size_t index;  // among the tables that bags name
  Rows rows;
  Rule rule;
  float* slots[2];          // in the order of SLOTS in rules.py
  std::int32_t* last_step;  // null where rows do not remember steps
  const double* moves;
  std::int64_t step;
  std::uint32_t seed;
  double learning_rate;
  double adam_rate;  // the learning rate with Adam's bias correction
};

// One gradient on its way to a row.
struct Entry {
  const float* gradient;  // (dim,)
  std::uint32_t row;
  float coefficient;
};

}  // namespace shortlist

#endif  // SHORTLIST_EMBEDDING_TYPES_H_
