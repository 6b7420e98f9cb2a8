// Reads TFRecord cut at every byte, changed at random and made of noise, for the
// sanitizers. Each input lies on the heap without room to spare, so that a read past
// its end is seen. What is read is checked in tests/data/kernels/test_tfrecord.py; here
// only that threads and both checksums agree, and that good records are read.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "../crc32c.h"
#include "../tf_record.h"

using namespace shortlist;

namespace {

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "failed: %s\n", what);
  std::exit(1);
}

const std::uint8_t* raw(const std::string& text) {
  return reinterpret_cast<const std::uint8_t*>(text.data());
}

std::string varint(std::uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}

std::string field(unsigned number, const std::string& content) {
  return varint(number << 3 | 2) + varint(content.size()) + content;
}

std::string fixed(std::uint64_t value, unsigned bytes) {
  std::string out;
  for (unsigned i = 0; i < bytes; ++i) out += static_cast<char>(value >> 8 * i);
  return out;
}

std::string framed(const std::string& data) {
  const std::string length = fixed(data.size(), 8);
  return length + fixed(masked(crc32c(raw(length), 8)), 4) + data +
         fixed(masked(crc32c(raw(data), data.size())), 4);
}

std::string entry(const std::string& name, const std::string& feature) {
  return field(1, field(1, name) + field(2, feature));
}

// An Example with values of all kinds, packed and not, a group and unknown fields.
std::string example(std::uint64_t number, std::size_t length) {
  std::string integers, floats, bytes;
  for (std::size_t i = 0; i < length; ++i) {
    integers += varint(number * (i + 1) - 2 * (i % 2));
    floats += fixed(number + i, 4);
    bytes += field(1, std::string(i % 5, 'x'));
  }
  const std::string group = varint(9 << 3 | 3) + varint(1 << 3) + varint(7) +
                            varint(4 << 3 | 5) + "four" + varint(9 << 3 | 4);
  const std::string loose = varint(1 << 3) + varint(number);
  return field(1, entry("id", field(3, field(1, integers) + loose)) +
                      entry("text", field(1, bytes)) + group +
                      entry("weight", field(2, field(1, floats)))) +
         field(5, "unknown") + varint(6 << 3 | 1) + "eight...";
}

struct Read {
  RecordBlock block;

  bool operator==(const Read& other) const {
    const RecordBlock &a = block, &b = other.block;
    if (a.fault.fault != b.fault.fault || a.fault.record != b.fault.record)
      return false;
    if (a.consumed != b.consumed || a.num_records != b.num_records) return false;
    if (a.smallest != b.smallest || a.sharing != b.sharing) return false;
    if (a.fault.fault != Fault::kNone) return true;
    for (std::size_t c = 0; c < a.columns.size(); ++c) {
      const FeatureValues &x = a.columns[c], &y = b.columns[c];
      const std::size_t bytes = 4 * x.floats.size();
      if (x.kind != y.kind || x.integers != y.integers || x.text != y.text ||
          x.ends != y.ends || x.counts != y.counts ||
          x.floats.size() != y.floats.size() ||
          (bytes && std::memcmp(x.floats.data(), y.floats.data(), bytes) != 0)) {
        return false;
      }
    }
    return true;
  }
};

Read read(const std::string& data, std::size_t threads, bool only_these = true) {
  const std::vector<std::uint8_t> exact(data.begin(), data.end());
  const FeatureNames names({"id", "text", "weight"});
  const std::vector<ValueKind> kinds(3, ValueKind::kNone);
  return {
      read_records({exact.data(), exact.size()}, names, kinds, only_these, threads)};
}

void check_checksums() {
  std::mt19937 random(1);
  require(crc32c(raw("123456789"), 9) == 0xE3069283u, "the known checksum");
  for (std::size_t size = 0; size < 200; ++size) {
    std::vector<std::uint8_t> bytes(size);
    for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
    require(crc32c(bytes.data(), size) == crc32c_portable(bytes.data(), size),
            "both checksums agree");
  }
}

void check_threads() {
  std::string data;
  for (std::uint64_t i = 0; i < 3000; ++i) data += framed(example(i * i, i % 90));
  const Read one = read(data, 1);
  require(one.block.fault.fault == Fault::kNone, "good records are read");
  require(one.block.num_records == 3000, "all of them");
  require(
      one.block.columns[0].integers.size() == one.block.columns[2].floats.size() + 3000,
      "every value");
  for (const std::size_t threads : {2, 5}) {
    require(one == read(data, threads), "records do not depend on threads");
  }
  data[data.size() / 2] ^= 1;
  require(read(data, 1).block.fault.fault != Fault::kNone, "a changed byte is found");
  require(read(data, 1) == read(data, 5), "faults do not depend on threads");
}

void check_cuts() {
  const std::string whole = framed(example(300, 4)) + framed(example(1, 0));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const Read cut = read(whole.substr(0, size), 1);
    require(cut.block.fault.fault == Fault::kNone, "a cut block waits for the rest");
    require(cut.block.num_records < 2, "a cut record is not read");
  }
  const std::string inside = example(300, 4);
  for (std::size_t size = 0; size < inside.size(); ++size) {
    read(framed(inside.substr(0, size)), 1);
    read(framed(inside.substr(0, size)), 1, false);
  }
}

void check_noise() {
  std::mt19937 random(2);
  const std::string good = example(1 << 20, 6);
  for (int round = 0; round < 20000; ++round) {
    std::string bad = good;
    for (unsigned changes = 1 + random() % 4; changes > 0; --changes) {
      bad[random() % bad.size()] = static_cast<char>(random());
    }
    read(framed(bad), 1, round % 2);
    std::string noise(random() % 60, '\n');
    for (char& byte : noise) {
      if (random() % 3) byte = static_cast<char>(random() % 40);
    }
    read(framed(noise), 1, round % 2);
    read(noise, 1);
  }
}

}  // namespace

int main() {
  check_checksums();
  check_threads();
  check_cuts();
  check_noise();
  std::puts("TFRecord: all checks passed");
  return 0;
}
