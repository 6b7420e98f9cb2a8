// Reads tf.train.Example messages into columns.
//
// Knows the protocol buffer wire format and the three messages Example, Features and
// Feature; knows nothing of files, checksums or threads. Every length is checked before
// it is followed, so no bytes can make it read outside of the message.
#ifndef SHORTLIST_TF_EXAMPLE_H_
#define SHORTLIST_TF_EXAMPLE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace shortlist {

struct Bytes {
  const std::uint8_t* data;
  std::size_t size;
};

// Numbered as the fields of Feature.
enum class ValueKind : std::uint8_t { kNone, kBytes, kFloats, kIntegers };

enum class Fault : std::uint8_t {
  kNone,
  kLengthChecksum,
  kTooLong,
  kDataChecksum,
  kNotExample,
  kFeatureMissing,
  kFeatureUnknown,
  kMixedKinds,
};

// What is wrong with a record and which feature shows it, if one does.
struct RecordFault {
  Fault fault = Fault::kNone;
  std::size_t record = 0;
  std::string feature;
};

// The values of one feature, record after record. Only those of its kind are filled.
struct FeatureValues {
  ValueKind kind = ValueKind::kNone;
  std::size_t kind_record = 0;  // the first record that has the kind
  std::vector<std::int64_t> integers;
  std::vector<float> floats;
  std::vector<std::uint8_t> text;  // of all values together
  std::vector<std::int64_t> ends;  // of each value in `text`
  std::vector<std::int32_t> counts;

  std::size_t size() const;
  void drop_last(std::size_t count);
};

// Places of names in a list of features.
class FeatureNames {
 public:
  // Names that are repeated count once, at their first place.
  explicit FeatureNames(std::vector<std::string> names);
  FeatureNames(const FeatureNames&) = delete;
  FeatureNames& operator=(const FeatureNames&) = delete;

  std::size_t size() const { return names_.size(); }
  const std::string& name(std::size_t place) const { return names_[place]; }
  // size() if it is none of them. `likely` is tried first.
  std::size_t find(std::string_view name, std::size_t likely) const;

 private:
  std::vector<std::string> names_;
  std::unordered_map<std::string_view, std::size_t> places_;
};

class ExampleReader {
 public:
  // `kinds` are those known from earlier records. `only_these`: a feature of another
  // name is a fault; otherwise its values are counted and dropped.
  ExampleReader(const FeatureNames& names, const std::vector<ValueKind>& kinds,
                bool only_these);

  // Appends one Example. After a fault the columns are of no use.
  bool read(Bytes record, std::size_t number, RecordFault& fault);

  std::vector<FeatureValues> columns;
  // The smallest number of values, other than 0, that a feature of a record has, and
  // the number of its features that have so many; over all features, dropped ones too.
  std::vector<std::int32_t> smallest;
  std::vector<std::int32_t> sharing;

 private:
  bool read_features(Bytes features, std::size_t number, RecordFault& fault);
  bool read_entry(Bytes entry, std::size_t number, RecordFault& fault);
  void count(std::size_t values);

  const FeatureNames& names_;
  const bool only_these_;
  std::vector<std::uint8_t> seen_;
  std::vector<std::size_t> followers_;  // the feature that last came after each one
  std::size_t last_ = 0;
  FeatureValues dropped_;
};

}  // namespace shortlist

#endif  // SHORTLIST_TF_EXAMPLE_H_
