// Reads a block of a TFRecord file: frames, checksums, and the Examples in them.
//
//   record = length (uint64), masked CRC-32C of it, data, masked CRC-32C of the data
//
// Knows memory and threads; knows nothing of files or Python. The result does not
// depend on the number of threads.
#ifndef SHORTLIST_TF_RECORD_H_
#define SHORTLIST_TF_RECORD_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tf_example.h"

namespace shortlist {

struct RecordBlock {
  std::size_t num_records = 0;
  std::size_t consumed = 0;  // bytes of whole records
  std::vector<FeatureValues> columns;
  std::vector<std::int32_t> smallest;  // see ExampleReader
  std::vector<std::int32_t> sharing;
  RecordFault fault;  // the first one; then the columns are of no use
};

// Reads the whole records at the start of `data`. See ExampleReader for the others.
RecordBlock read_records(Bytes data, const FeatureNames& names,
                         const std::vector<ValueKind>& kinds, bool only_these,
                         std::size_t threads);

}  // namespace shortlist

#endif  // SHORTLIST_TF_RECORD_H_
