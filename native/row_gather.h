// Gathers the rows of many columns at once, widened and padded, threaded.
//
// Knows columns in chunks and threads; knows nothing of files or Python. Types and
// lengths are checked by the caller (gather_bindings.cc), rows and offsets here, as
// they are read.
#ifndef SHORTLIST_ROW_GATHER_H_
#define SHORTLIST_ROW_GATHER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

namespace shortlist {

// Number types of stored values, in the order of STORED in gather_kernels.py.
enum class StoredType {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kInt64,
  kFloat16,
  kFloat32,
  kFloat64
};
constexpr std::size_t kStoredTypes = 10;

// Number types of gathered values, in the order of WIDENED in gather_kernels.py.
enum class WideType { kInt32, kInt64, kFloat32 };
constexpr std::size_t kWideTypes = 3;

// The rows of one column in one chunk: `width` values each, or, with offsets, row i is
// the values from offsets[i] to offsets[i + 1], of which the first `width` count.
// Nothing has to be aligned.
struct ColumnChunk {
  const char* values;
  const char* offsets;  // null where all rows are equally long
  StoredType type;
  bool wide_offsets;  // int64, not int32
  std::size_t num_values;
};

// A kind fits its chunks: integers become integers, floats float32, and neither an
// int64 nor a uint32 becomes an int32.
struct GatheredColumn {
  std::vector<ColumnChunk> chunks;
  std::size_t width;
  WideType type;
  char* out;  // (num_rows, width); lists end with -1, or 0 for floats
};

std::size_t size_of(StoredType type);
std::size_t size_of(WideType type);

// Fills `out` of every column with the values of `rows`. The chunks are the same rows
// in every column: chunk c begins at starts[c], rises, and has fewer than 2^32 rows.
// Nothing depends on `threads`. Throws std::out_of_range for a row that is in no chunk,
// or a list that leads out of its values.
void gather_rows(const std::int64_t* rows, std::size_t num_rows,
                 const std::int64_t* starts, std::size_t num_chunks,
                 const std::vector<GatheredColumn>& columns, std::size_t threads);

}  // namespace shortlist

#endif  // SHORTLIST_ROW_GATHER_H_
