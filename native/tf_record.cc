#include "tf_record.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "crc32c.h"
#include "parallel.h"

namespace shortlist {
namespace {

constexpr std::size_t kHeaderBytes = 12, kFooterBytes = 4;
// Protocol buffers end at 2 GiB.
constexpr std::uint64_t kMaxRecordBytes = (std::uint64_t{1} << 31) - 1;
// Records that one task reads, by their bytes.
constexpr std::size_t kTaskBytes = 1 << 18;

// The records one task reads, and what it made of them.
struct Task {
  std::size_t first;
  std::size_t end;
  std::unique_ptr<ExampleReader> reader;
  RecordFault fault;
};

// Finds the whole records at the start of `data`.
std::vector<Bytes> find_records(Bytes data, RecordBlock& block) {
  std::vector<Bytes> records;
  std::size_t at = 0;
  while (data.size - at >= kHeaderBytes) {
    const std::uint8_t* header = data.data + at;
    const std::uint64_t length = load_u64(header);
    if (load_u32(header + 8) != masked(crc32c(header, 8))) {
      block.fault = {Fault::kLengthChecksum, records.size(), ""};
      break;
    }
    if (length > kMaxRecordBytes) {
      block.fault = {Fault::kTooLong, records.size(), ""};
      break;
    }
    if (data.size - at - kHeaderBytes < length + kFooterBytes) break;
    records.push_back({header + kHeaderBytes, static_cast<std::size_t>(length)});
    at += kHeaderBytes + static_cast<std::size_t>(length) + kFooterBytes;
  }
  block.consumed = at;
  block.num_records = records.size();
  return records;
}

std::vector<Task> share_out(const std::vector<Bytes>& records) {
  std::vector<Task> tasks;
  std::size_t bytes = kTaskBytes;
  for (std::size_t i = 0; i < records.size(); ++i) {
    if (bytes >= kTaskBytes) {
      tasks.push_back({i, i, nullptr, {}});
      bytes = 0;
    }
    tasks.back().end = i + 1;
    bytes += records[i].size;
  }
  return tasks;
}

void run(Task& task, const std::vector<Bytes>& records) {
  for (std::size_t i = task.first; i < task.end; ++i) {
    const Bytes record = records[i];
    if (load_u32(record.data + record.size) !=
        masked(crc32c(record.data, record.size))) {
      task.fault = {Fault::kDataChecksum, i, ""};
      return;
    }
    if (!task.reader->read(record, i, task.fault)) return;
  }
}

// The first fault of all tasks; kinds may also differ between tasks.
void find_fault(const std::vector<Task>& tasks, const FeatureNames& names,
                std::vector<ValueKind> kinds, RecordFault& fault) {
  for (const Task& task : tasks) {
    RecordFault first = task.fault;
    for (std::size_t c = 0; c < names.size(); ++c) {
      const FeatureValues& column = task.reader->columns[c];
      if (column.kind == ValueKind::kNone) continue;
      const bool differs = kinds[c] != ValueKind::kNone && kinds[c] != column.kind;
      if (differs &&
          (first.fault == Fault::kNone || column.kind_record < first.record)) {
        first = {Fault::kMixedKinds, column.kind_record, names.name(c)};
      }
      if (kinds[c] == ValueKind::kNone) kinds[c] = column.kind;
    }
    if (first.fault != Fault::kNone) {
      fault = std::move(first);
      return;
    }
  }
}

template <typename T>
void append(const std::vector<T>& from, std::vector<T>& to) {
  to.insert(to.end(), from.begin(), from.end());
}

// The values of feature `c` of all tasks, in order. Takes them away from the tasks.
FeatureValues joined(std::vector<Task>& tasks, std::size_t c) {
  FeatureValues all = std::move(tasks[0].reader->columns[c]);
  std::size_t sizes[4] = {};
  for (const Task& task : tasks) {
    const FeatureValues& part = task.reader->columns[c];
    sizes[0] += part.integers.size();
    sizes[1] += part.floats.size();
    sizes[2] += part.text.size();
    sizes[3] += part.counts.size();
  }
  all.integers.reserve(all.integers.size() + sizes[0]);
  all.floats.reserve(all.floats.size() + sizes[1]);
  all.text.reserve(all.text.size() + sizes[2]);
  all.counts.reserve(all.counts.size() + sizes[3]);
  for (std::size_t t = 1; t < tasks.size(); ++t) {
    const FeatureValues part = std::move(tasks[t].reader->columns[c]);
    if (all.kind == ValueKind::kNone) all.kind = part.kind;
    const auto base = static_cast<std::int64_t>(all.text.size());
    append(part.integers, all.integers);
    append(part.floats, all.floats);
    append(part.text, all.text);
    for (std::int64_t end : part.ends) all.ends.push_back(base + end);
    append(part.counts, all.counts);
  }
  return all;
}

}  // namespace

RecordBlock read_records(Bytes data, const FeatureNames& names,
                         const std::vector<ValueKind>& kinds, bool only_these,
                         std::size_t threads) {
  RecordBlock block;
  const std::vector<Bytes> records = find_records(data, block);
  std::vector<Task> tasks = share_out(records);
  for (Task& task : tasks) {
    task.reader = std::make_unique<ExampleReader>(names, kinds, only_these);
  }
  run_tasks(tasks.size(), threads, [&](std::size_t t) { run(tasks[t], records); });
  RecordFault fault;
  find_fault(tasks, names, kinds, fault);
  // A bad frame comes after all the records before it.
  if (fault.fault != Fault::kNone) block.fault = std::move(fault);
  block.columns.resize(names.size());
  if (tasks.empty() || block.fault.fault != Fault::kNone) return block;
  run_tasks(names.size(), threads,
            [&](std::size_t c) { block.columns[c] = joined(tasks, c); });
  for (const Task& task : tasks) {
    append(task.reader->smallest, block.smallest);
    append(task.reader->sharing, block.sharing);
  }
  return block;
}

}  // namespace shortlist
