// Runs the data kernels on ids and rows of many shapes and on several threads, for the
// sanitizers. The results are checked against the standard library here, and against
// NumPy in tests/data/kernels/test_ids.py.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "../group_order.h"
#include "../hashing.h"
#include "../id_map.h"

using namespace shortlist;

namespace {

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "failed: %s\n", what);
  std::exit(1);
}

// Texts as Arrow lays them out, in two buffers without room to spare.
class Views {
 public:
  explicit Views(const std::vector<std::string>& texts) {
    for (std::size_t i = 0; i < texts.size(); ++i) {
      TextView view = TextIds::id(texts[i]).view;
      std::vector<char>& buffer = buffers_[i % 2];
      if (!view.is_inline()) {
        const std::uint32_t place[] = {static_cast<std::uint32_t>(i % 2),
                                       static_cast<std::uint32_t>(buffer.size())};
        std::memcpy(&view.rest, place, sizeof place);
        buffer.insert(buffer.end(), texts[i].begin(), texts[i].end());
      }
      views_.push_back(view);
    }
    for (std::size_t b = 0; b < 2; ++b) {
      buffers_[b].shrink_to_fit();
      starts_[b] = {buffers_[b].data(), buffers_[b].size()};
    }
  }

  TextColumn column(Validity validity) const {
    return {views_.data(), views_.size(), validity, starts_.data(), starts_.size()};
  }

 private:
  std::vector<TextView> views_;
  std::array<std::vector<char>, 2> buffers_;
  std::array<TextBuffer, 2> starts_ = {};
};

std::vector<std::string> some_texts(std::size_t count, std::mt19937& random) {
  std::vector<std::string> texts;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t length = random() % 40;
    std::string text(length, static_cast<char>('a' + random() % 2));
    if (length > 0) text[random() % length] = '\0';
    texts.push_back(text);
  }
  return texts;
}

// Every third value is missing, and the bits begin in the middle of a byte.
std::vector<std::uint8_t> some_validity(std::size_t count) {
  std::vector<std::uint8_t> bits(count / 8 + 2, 0);
  for (std::size_t i = 0; i < count; ++i) {
    if (i % 3 != 0) bits[(i + 5) / 8] |= static_cast<std::uint8_t>(1 << (i + 5) % 8);
  }
  return bits;
}

template <typename Ids, typename Value>
void check_map(const typename Ids::Column& column, const std::vector<Value>& values) {
  std::unordered_map<Value, std::int32_t> expected;
  IdMap<Ids> map(std::numeric_limits<std::int32_t>::max());
  std::vector<std::int32_t> added(values.size()), found(values.size());
  map.add(column, added.data());
  map.find(column, found.data());
  require(added == found, "an id is found where it was added");
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!column.is_valid(i)) {
      require(added[i] == -1, "a missing value has no code");
      continue;
    }
    const auto next = static_cast<std::int32_t>(expected.size());
    const auto place = expected.emplace(values[i], next).first;
    require(added[i] == place->second, "codes are those of a standard map");
    require(map.find_one(Ids::id(column, i)) == added[i], "one is found as many are");
  }
  require(map.size() == expected.size(), "the size is the number of ids");

  IdMap<Ids> small(expected.size() - 1);
  bool refused = false;
  try {
    small.add(column, added.data());
  } catch (const std::length_error&) {
    refused = true;
  }
  require(refused && small.size() + 1 == expected.size(), "a map can be full");
}

void check_int_map() {
  std::mt19937_64 random(1);
  std::vector<std::int64_t> ids = {std::numeric_limits<std::int64_t>::min(),
                                   std::numeric_limits<std::int64_t>::max(), 0, -1};
  for (int i = 0; i < 20000; ++i) {
    ids.push_back(static_cast<std::int64_t>(random() % 7000) << (i % 50));
  }
  const std::vector<std::uint8_t> bits = some_validity(ids.size());
  check_map<IntIds>({ids.data(), ids.size(), {nullptr, 0}}, ids);
  check_map<IntIds>({ids.data(), ids.size(), {bits.data(), 5}}, ids);
}

void check_text_map() {
  std::mt19937 random(1);
  const std::vector<std::string> texts = some_texts(20000, random);
  const Views views(texts);
  const std::vector<std::uint8_t> bits = some_validity(texts.size());
  check_map<TextIds>(views.column({nullptr, 0}), texts);
  check_map<TextIds>(views.column({bits.data(), 5}), texts);

  IdMap<TextIds> map(texts.size());
  std::vector<std::int32_t> codes(texts.size());
  map.add(views.column({nullptr, 0}), codes.data());
  map.read([&](const TextIds& ids) {
    std::vector<std::int64_t> offsets(ids.size() + 1);
    std::vector<char> bytes(ids.num_bytes(ids.size()));
    ids.copy(ids.size(), offsets.data(), bytes.data());
    for (std::size_t i = 0; i < texts.size(); ++i) {
      const auto code = static_cast<std::size_t>(codes[i]);
      const std::string copied(bytes.data() + offsets[code],
                               bytes.data() + offsets[code + 1]);
      require(copied == texts[i], "texts come back as they were");
    }
  });
}

// Some look up while others add.
void check_shared_map() {
  std::vector<std::int64_t> ids(30000);
  std::iota(ids.begin(), ids.end(), 0);
  IdMap<IntIds> map(ids.size());
  std::atomic<bool> right{true};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::vector<std::int32_t> codes(100);
      for (std::size_t i = 0; i < ids.size(); i += codes.size()) {
        const IntColumn column = {ids.data() + i, codes.size(), {nullptr, 0}};
        if (t % 2 == 0) map.add(column, codes.data());
        if (t % 2 != 0) map.find(column, codes.data());
        const std::int32_t one = map.find_one(ids[i]);
        if (codes[0] != -1 && codes[0] != one) right = false;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  require(right && map.size() == ids.size(), "a map can be shared");
}

void check_hashes() {
  require(hash_bytes("", 0) == 0xEF46DB3751D8E999, "XXH64 of nothing");
  require(hash_bytes("a", 0) == 0xD24EC4F1A98C6E5B, "XXH64 of a letter");
  std::string text;
  for (std::size_t size = 0; size < 200; ++size) {
    for (const std::size_t step : {1, 7, 31, 32, 33, 64}) {
      StreamHash stream(size);
      for (std::size_t i = 0; i < size; i += step) {
        stream.update(std::string_view(text).substr(i, step));
      }
      require(stream.digest() == hash_bytes(text, size), "pieces do not matter");
    }
    text.push_back(static_cast<char>(size * 37));
  }
  std::mt19937 random(1);
  const std::vector<std::string> texts = some_texts(1000, random);
  const Views views(texts);
  std::vector<std::uint64_t> hashes(texts.size());
  hash_column(views.column({nullptr, 0}), 7, hashes.data());
  for (std::size_t i = 0; i < texts.size(); ++i) {
    require(hashes[i] == hash_bytes(texts[i], 7), "a column hashes as its texts");
  }
  const std::int64_t least = std::numeric_limits<std::int64_t>::min();
  hash_column({&least, 1, {nullptr, 0}}, 7, hashes.data());
  require(hashes[0] == hash_bytes("-9223372036854775808", 7), "numbers hash as text");
}

template <typename Row>
void check_order(std::size_t num_rows, std::int32_t num_groups, int shift) {
  std::mt19937_64 random(num_rows);
  std::vector<std::int32_t> groups(num_rows);
  std::vector<std::int64_t> times(num_rows);
  for (std::size_t i = 0; i < num_rows; ++i) {
    groups[i] = static_cast<std::int32_t>(random() % num_groups);
    // No shift: already in order.
    times[i] = shift == 0 ? static_cast<std::int64_t>(i)
                          : static_cast<std::int64_t>(random()) >> shift;
  }
  std::vector<std::int64_t> expected(num_rows);
  std::iota(expected.begin(), expected.end(), 0);
  std::stable_sort(
      expected.begin(), expected.end(), [&](std::int64_t a, std::int64_t b) {
        return std::tie(groups[a], times[a]) < std::tie(groups[b], times[b]);
      });
  const GroupedRows rows = {groups.data(), num_rows,
                            static_cast<std::size_t>(num_groups)};
  for (const std::size_t threads : {1, 2, 5}) {
    std::vector<std::int64_t> order(num_rows);
    group_order<Row>(rows, times.data(), threads, order.data());
    require(order == expected, "the order is that of a stable sort");
    std::vector<std::int64_t> offsets(rows.num_groups + 1);
    group_offsets(rows, threads, offsets.data());
    require(offsets.back() == static_cast<std::int64_t>(num_rows), "all are counted");
    for (std::size_t i = 0; i < num_rows; ++i) {
      const std::int32_t group = groups[expected[i]];
      const auto place = static_cast<std::int64_t>(i);
      require(offsets[group] <= place && place < offsets[group + 1],
              "groups are there");
    }
  }
}

template <typename Call>
bool is_refused(const Call& call) {
  try {
    call();
  } catch (const std::out_of_range&) {
    return true;
  }
  return false;
}

// What leads out of a column or of the groups is refused, on any number of threads.
void check_refusals() {
  const std::int64_t times[] = {1, 2, 3};
  std::int64_t order[3], offsets[3];
  for (const std::int32_t wrong : {-1, 2, std::numeric_limits<std::int32_t>::min()}) {
    const std::int32_t groups[] = {0, 1, wrong};
    const GroupedRows rows = {groups, 3, 2};
    for (const std::size_t threads : {1, 4}) {
      require(
          is_refused([&] { group_order<std::uint32_t>(rows, times, threads, order); }),
          "a group out of range has no place in an order");
      require(is_refused([&] { group_offsets(rows, threads, offsets); }),
              "a group out of range is not counted");
    }
  }
  const std::int32_t zero = 0;
  require(
      is_refused([&] { group_order<std::uint64_t>({&zero, 1, 0}, times, 1, order); }),
      "there are no rows of no groups");
  const std::string text(20, 'x');
  for (const auto& [buffer, place] : {std::pair<std::uint32_t, std::uint32_t>{1, 0},
                                      {0, 1},
                                      {0, 0xFFFFFFFFu},
                                      {0xFFFFFFFFu, 0}}) {
    TextView view = TextIds::id(text).view;
    const std::uint32_t lying[] = {buffer, place};
    std::memcpy(&view.rest, lying, sizeof lying);
    const TextBuffer held = {text.data(), text.size()};
    const TextColumn column = {&view, 1, {nullptr, 0}, &held, 1};
    std::int32_t code;
    std::uint64_t hash;
    IdMap<TextIds> map(9);
    require(is_refused([&] { map.add(column, &code); }), "a lying view is not added");
    require(is_refused([&] { map.find(column, &code); }), "a lying view is not found");
    require(is_refused([&] { hash_column(column, 0, &hash); }),
            "a lying view has no hash");
    require(map.size() == 0, "nothing was added");
  }
}

}  // namespace

int main() {
  check_int_map();
  check_text_map();
  check_shared_map();
  std::printf("maps of ids\n");
  check_hashes();
  std::printf("hashes\n");
  for (const int shift : {0, 1, 40, 58}) {
    for (const std::size_t num_rows : {0, 1, 300, 50000}) {
      check_order<std::uint32_t>(num_rows, 17, shift);
      check_order<std::uint64_t>(num_rows, 100000, shift);
    }
  }
  // Rows of several chunks, in parts that count for themselves.
  check_order<std::uint32_t>(2500000, 1000, 30);
  std::printf("order of groups\n");
  check_refusals();
  std::printf("refusals\n");
  return 0;
}
