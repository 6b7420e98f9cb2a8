#include "tf_example.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "crc32c.h"

namespace shortlist {
namespace {

// As deep as protocol buffers follow groups.
constexpr int kMaxDepth = 100;
constexpr unsigned kVarint = 0, kFixed64 = 1, kLengthDelimited = 2, kGroup = 3,
                   kGroupEnd = 4, kFixed32 = 5;

// Walks the fields of one message. Every step fails rather than pass the end.
class Fields {
 public:
  explicit Fields(Bytes message)
      : at_(message.data), end_(message.data + message.size) {}

  bool done() const { return at_ == end_; }
  const std::uint8_t* place() const { return at_; }

  bool varint(std::uint64_t& value) {
    value = 0;
    for (unsigned shift = 0; shift < 70; shift += 7) {
      if (at_ == end_) return false;
      const std::uint8_t byte = *at_++;
      value |= std::uint64_t{byte & 0x7Fu} << shift;  // bits beyond 64 fall out
      if (byte < 0x80) return true;
    }
    return false;
  }

  bool tag(std::uint32_t& field, unsigned& wire) {
    std::uint64_t value;
    if (!varint(value) || value > 0xFFFFFFFFu) return false;
    field = static_cast<std::uint32_t>(value >> 3);
    wire = value & 7;
    return field != 0;
  }

  bool bytes(Bytes& value) {
    std::uint64_t size;
    if (!varint(size) || size > left()) return false;
    value = {at_, static_cast<std::size_t>(size)};
    at_ += size;
    return true;
  }

  bool fixed32(std::uint32_t& value) {
    if (left() < 4) return false;
    value = load_u32(at_);
    at_ += 4;
    return true;
  }

  // Passes a field that nobody asked for, groups with all that is in them.
  bool skip(std::uint32_t field, unsigned wire) {
    std::uint32_t open[kMaxDepth];
    int depth = 0;
    for (;;) {
      if (wire == kGroup) {
        if (depth == kMaxDepth) return false;
        open[depth++] = field;
      } else if (wire == kGroupEnd) {
        if (depth == 0 || open[--depth] != field) return false;
      } else if (!skip_plain(wire)) {
        return false;
      }
      if (depth == 0) return true;
      if (!tag(field, wire)) return false;
    }
  }

 private:
  std::size_t left() const { return static_cast<std::size_t>(end_ - at_); }

  bool skip_plain(unsigned wire) {
    std::uint64_t number;
    Bytes value;
    if (wire == kVarint) return varint(number);
    if (wire == kLengthDelimited) return bytes(value);
    const std::size_t size = wire == kFixed64 ? 8 : wire == kFixed32 ? 4 : 0;
    if (size == 0 || left() < size) return false;
    at_ += size;
    return true;
  }

  const std::uint8_t* at_;
  const std::uint8_t* end_;
};

bool append_packed_integers(Bytes packed, std::vector<std::int64_t>& integers) {
  if (packed.size == 0) return true;
  std::size_t count = 0;
  for (std::size_t i = 0; i < packed.size; ++i) count += packed.data[i] < 0x80;
  const std::size_t begin = integers.size();
  integers.resize(begin + count);
  std::int64_t* to = integers.data() + begin;
  Fields fields(packed);
  for (std::size_t i = 0; i < count; ++i) {
    std::uint64_t value;
    if (!fields.varint(value)) return false;
    to[i] = static_cast<std::int64_t>(value);
  }
  return fields.done();
}

float as_float(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

bool append_packed_floats(Bytes packed, std::vector<float>& floats) {
  if (packed.size % 4) return false;
  const std::size_t begin = floats.size();
  floats.resize(begin + packed.size / 4);
  float* to = floats.data() + begin;
  for (std::size_t i = 0; i < packed.size / 4; ++i) {
    to[i] = as_float(load_u32(packed.data + 4 * i));
  }
  return true;
}

// Appends the values of a BytesList, FloatList or Int64List.
bool append_list(Bytes list, ValueKind kind, FeatureValues& values) {
  Fields fields(list);
  while (!fields.done()) {
    std::uint32_t field, bits;
    unsigned wire;
    std::uint64_t number;
    Bytes bytes;
    if (!fields.tag(field, wire)) return false;
    if (field == 1 && wire == kLengthDelimited) {
      if (!fields.bytes(bytes)) return false;
      if (kind == ValueKind::kBytes) {
        values.text.insert(values.text.end(), bytes.data, bytes.data + bytes.size);
        values.ends.push_back(static_cast<std::int64_t>(values.text.size()));
      } else if (kind == ValueKind::kFloats
                     ? !append_packed_floats(bytes, values.floats)
                     : !append_packed_integers(bytes, values.integers)) {
        return false;
      }
    } else if (field == 1 && wire == kFixed32 && kind == ValueKind::kFloats) {
      if (!fields.fixed32(bits)) return false;
      values.floats.push_back(as_float(bits));
    } else if (field == 1 && wire == kVarint && kind == ValueKind::kIntegers) {
      if (!fields.varint(number)) return false;
      values.integers.push_back(static_cast<std::int64_t>(number));
    } else if (!fields.skip(field, wire)) {
      return false;
    }
  }
  return true;
}

// The kind of a Feature and where its lists of that kind begin: setting another member
// of a oneof clears what came before.
bool find_kind(Bytes feature, ValueKind& kind, Bytes& lists) {
  kind = ValueKind::kNone;
  lists = feature;
  Fields fields(feature);
  while (!fields.done()) {
    const std::uint8_t* place = fields.place();
    std::uint32_t field;
    unsigned wire;
    if (!fields.tag(field, wire) || !fields.skip(field, wire)) return false;
    if (wire != kLengthDelimited || field > 3) continue;
    const auto found = static_cast<ValueKind>(field);
    if (found != kind) {
      lists = {place, static_cast<std::size_t>(feature.data + feature.size - place)};
    }
    kind = found;
  }
  return true;
}

bool append_lists(Bytes lists, ValueKind kind, FeatureValues& values) {
  Fields fields(lists);
  while (!fields.done()) {
    std::uint32_t field;
    unsigned wire;
    if (!fields.tag(field, wire)) return false;
    if (field != static_cast<std::uint32_t>(kind) || wire != kLengthDelimited) {
      if (!fields.skip(field, wire)) return false;
      continue;
    }
    Bytes list;
    if (!fields.bytes(list) || !append_list(list, kind, values)) return false;
  }
  return true;
}

}  // namespace

std::size_t FeatureValues::size() const {
  return kind == ValueKind::kIntegers ? integers.size()
         : kind == ValueKind::kFloats ? floats.size()
                                      : ends.size();
}

void FeatureValues::drop_last(std::size_t count) {
  if (kind == ValueKind::kIntegers) integers.resize(integers.size() - count);
  if (kind == ValueKind::kFloats) floats.resize(floats.size() - count);
  if (kind != ValueKind::kBytes) return;
  ends.resize(ends.size() - count);
  text.resize(ends.empty() ? 0 : static_cast<std::size_t>(ends.back()));
}

FeatureNames::FeatureNames(std::vector<std::string> names) : names_(std::move(names)) {
  for (std::size_t i = 0; i < names_.size(); ++i) places_.emplace(names_[i], i);
}

std::size_t FeatureNames::find(std::string_view name, std::size_t likely) const {
  if (likely < names_.size() && names_[likely] == name) return likely;
  const auto found = places_.find(name);
  return found == places_.end() ? names_.size() : found->second;
}

ExampleReader::ExampleReader(const FeatureNames& names,
                             const std::vector<ValueKind>& kinds, bool only_these)
    : columns(names.size()),
      names_(names),
      only_these_(only_these),
      seen_(names.size()),
      followers_(names.size() + 1) {
  for (std::size_t i = 0; i < names.size(); ++i) {
    columns[i].kind = kinds[i];
    followers_[i] = i + 1;
  }
  last_ = names.size();
}

bool ExampleReader::read(Bytes record, std::size_t number, RecordFault& fault) {
  std::fill(seen_.begin(), seen_.end(), std::uint8_t{0});
  for (FeatureValues& column : columns) column.counts.push_back(0);
  smallest.push_back(0);
  sharing.push_back(0);
  Fields fields(record);
  while (!fields.done()) {
    std::uint32_t field;
    unsigned wire;
    Bytes features;
    bool good = fields.tag(field, wire);
    if (good && field == 1 && wire == kLengthDelimited) {
      good = fields.bytes(features);
      if (good && !read_features(features, number, fault)) return false;
    } else {
      good = good && fields.skip(field, wire);
    }
    if (!good) {
      fault = {Fault::kNotExample, number, ""};
      return false;
    }
  }
  for (std::size_t i = 0; i < columns.size(); ++i) {
    if (!seen_[i]) {
      fault = {Fault::kFeatureMissing, number, names_.name(i)};
      return false;
    }
    count(static_cast<std::size_t>(columns[i].counts.back()));
  }
  return true;
}

bool ExampleReader::read_features(Bytes features, std::size_t number,
                                  RecordFault& fault) {
  Fields fields(features);
  while (!fields.done()) {
    std::uint32_t field;
    unsigned wire;
    Bytes entry;
    bool good = fields.tag(field, wire);
    if (good && field == 1 && wire == kLengthDelimited) {
      good = fields.bytes(entry);
      if (good && !read_entry(entry, number, fault)) return false;
    } else {
      good = good && fields.skip(field, wire);
    }
    if (!good) {
      fault = {Fault::kNotExample, number, ""};
      return false;
    }
  }
  return true;
}

// One entry of the map: of a key or value that is repeated the last counts, and so it
// does of an entry.
bool ExampleReader::read_entry(Bytes entry, std::size_t number, RecordFault& fault) {
  Bytes key = {entry.data, 0}, feature = {entry.data, 0};
  Fields fields(entry);
  bool good = true;
  while (good && !fields.done()) {
    std::uint32_t field;
    unsigned wire;
    good = fields.tag(field, wire);
    if (good && field <= 2 && wire == kLengthDelimited) {
      good = fields.bytes(field == 1 ? key : feature);
    } else {
      good = good && fields.skip(field, wire);
    }
  }
  std::string_view name(reinterpret_cast<const char*>(key.data), key.size);
  if (!good) name = "";
  ValueKind kind;
  Bytes lists;
  if (!good || !find_kind(feature, kind, lists)) {
    fault = {Fault::kNotExample, number, std::string(name)};
    return false;
  }
  const std::size_t place = names_.find(name, followers_[last_]);
  const bool known = place < names_.size();
  if (!known && only_these_) {
    fault = {Fault::kFeatureUnknown, number, std::string(name)};
    return false;
  }
  FeatureValues& column = known ? columns[place] : dropped_;
  if (!known) dropped_ = FeatureValues();
  if (known && seen_[place]) {
    column.drop_last(static_cast<std::size_t>(column.counts.back()));
    column.counts.back() = 0;
  }
  if (kind != ValueKind::kNone && kind != column.kind) {
    if (column.kind != ValueKind::kNone) {
      fault = {Fault::kMixedKinds, number, std::string(name)};
      return false;
    }
    column.kind = kind;
    column.kind_record = number;
  }
  const std::size_t before = column.size();
  if (!append_lists(lists, kind, column)) {
    fault = {Fault::kNotExample, number, std::string(name)};
    return false;
  }
  if (!known) {
    count(column.size());
    return true;
  }
  column.counts.back() = static_cast<std::int32_t>(column.size() - before);
  seen_[place] = 1;
  followers_[last_] = place;
  last_ = place;
  return true;
}

void ExampleReader::count(std::size_t values) {
  const auto found = static_cast<std::int32_t>(values);
  if (found == 0) return;
  if (smallest.back() == 0 || found < smallest.back()) {
    smallest.back() = found;
    sharing.back() = 0;
  }
  sharing.back() += found == smallest.back();
}

}  // namespace shortlist
