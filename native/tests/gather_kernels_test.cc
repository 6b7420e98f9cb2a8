// Gathers rows of all number types and forms, and histories, on several threads and
// from memory without room to spare, for the sanitizers. Checks what needs no oracle:
// every number of threads gives the same bits. The numbers themselves are checked in
// tests/data/kernels/test_gather.py.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <stdexcept>
#include <vector>

#include "../history_gather.h"
#include "../row_gather.h"

using namespace shortlist;

namespace {

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "failed: %s\n", what);
  std::exit(1);
}

using Bytes = std::vector<char>;

constexpr std::size_t kSizes[kStoredTypes] = {1, 1, 2, 2, 4, 4, 8, 2, 4, 8};

// One column: lists of `width` values, or of up to `width` with offsets.
struct Stored {
  Stored(const std::vector<std::size_t>& lengths, const std::vector<StoredType>& types,
         std::size_t width, int offset_bytes, WideType wide, std::mt19937& random) {
    column.width = width;
    column.type = wide;
    for (std::size_t c = 0; c < lengths.size(); ++c) {
      std::size_t count = lengths[c] * width;
      offsets.emplace_back();
      if (offset_bytes != 0) {
        std::vector<std::int64_t> ends = {0};
        for (std::size_t i = 0; i < lengths[c]; ++i) {
          ends.push_back(ends.back() +
                         static_cast<std::int64_t>(random() % (width + 1)));
        }
        count = static_cast<std::size_t>(ends.back());
        for (const std::int64_t end : ends) {
          const auto* bytes = reinterpret_cast<const char*>(&end);
          offsets[c].insert(offsets[c].end(), bytes, bytes + offset_bytes);
        }
      }
      const StoredType type = types[c % types.size()];
      values.emplace_back(count * kSizes[static_cast<std::size_t>(type)]);
      for (char& byte : values[c]) byte = static_cast<char>(random() % 60);
      column.chunks.push_back({values[c].data(),
                               offset_bytes == 0 ? nullptr : offsets[c].data(), type,
                               offset_bytes == 8, count});
    }
  }

  std::vector<Bytes> values, offsets;
  GatheredColumn column;
};

std::vector<Bytes> gather(const std::vector<std::int64_t>& rows,
                          const std::vector<std::int64_t>& starts,
                          std::vector<GatheredColumn> columns, std::size_t threads) {
  std::vector<Bytes> outs;
  for (GatheredColumn& column : columns) {
    const std::size_t bytes = column.type == WideType::kInt64 ? 8 : 4;
    outs.emplace_back(rows.size() * column.width * bytes);
    column.out = outs.back().data();
  }
  gather_rows(rows.data(), rows.size(), starts.data(), starts.size() - 1, columns,
              threads);
  return outs;
}

void check_rows(const std::vector<std::size_t>& lengths, std::size_t num_rows) {
  std::mt19937 random(static_cast<unsigned>(lengths.size()));
  std::vector<std::int64_t> starts = {0};
  for (const std::size_t length : lengths) {
    starts.push_back(starts.back() + static_cast<std::int64_t>(length));
  }
  std::vector<std::int64_t> rows(num_rows);
  for (std::int64_t& row : rows) {
    row = static_cast<std::int64_t>(random()) % starts.back();
  }
  const std::vector<std::vector<StoredType>> integers = {
      {StoredType::kUint8},  {StoredType::kInt8},
      {StoredType::kUint16}, {StoredType::kInt16},
      {StoredType::kInt32},  {StoredType::kUint8, StoredType::kInt32}};
  const std::vector<std::vector<StoredType>> wide = {
      {StoredType::kUint32},
      {StoredType::kInt64},
      {StoredType::kUint8, StoredType::kInt64}};
  const std::vector<std::vector<StoredType>> floats = {
      {StoredType::kFloat16},
      {StoredType::kFloat32},
      {StoredType::kFloat64},
      {StoredType::kFloat16, StoredType::kFloat64}};
  std::vector<Stored> stored;
  for (const std::size_t width : {1, 3, 40}) {
    for (const int offset_bytes : {0, 4, 8}) {
      const auto add = [&](const auto& kinds, WideType type) {
        for (const auto& types : kinds) {
          stored.emplace_back(lengths, types, width, offset_bytes, type, random);
        }
      };
      add(integers, WideType::kInt32);
      add(integers, WideType::kInt64);
      add(wide, WideType::kInt64);
      add(floats, WideType::kFloat32);
    }
  }
  std::vector<GatheredColumn> columns;
  for (const Stored& one : stored) columns.push_back(one.column);
  const std::vector<Bytes> once = gather(rows, starts, columns, 1);
  for (const std::size_t threads : {2, 5}) {
    require(once == gather(rows, starts, columns, threads),
            "rows do not depend on threads");
  }
}

template <typename Item>
void check_histories(std::size_t num_items, std::size_t num_rows) {
  std::mt19937 random(static_cast<unsigned>(num_items));
  const std::size_t num_users = 50;
  std::vector<std::int64_t> offsets = {0};
  for (std::size_t user = 1; user <= num_users; ++user) {
    offsets.push_back(
        static_cast<std::int64_t>(num_items * user * user / (num_users * num_users)));
  }
  std::vector<std::int64_t> timestamps(num_items);
  for (std::size_t i = 0; i < num_items; ++i) {
    timestamps[i] = static_cast<std::int64_t>(i / 2);
  }
  std::vector<Item> items(num_items, 7);
  std::vector<std::int64_t> users(num_rows), moments(num_rows);
  for (std::size_t i = 0; i < num_rows; ++i) {
    users[i] = static_cast<std::int64_t>(random() % num_users);
    moments[i] = static_cast<std::int64_t>(random() % (num_items + 2)) - 1;
  }
  const UserItems stored = {offsets.data(), timestamps.data(), items.data(),
                            sizeof(Item),   num_users,         num_items};
  for (const std::int64_t gap : {-1, 0, 3}) {
    for (const bool last : {false, true}) {
      if (last && gap >= 0) continue;
      const HistoryQuery query = {users.data(), last ? nullptr : moments.data(),
                                  num_rows, 9, gap};
      std::vector<std::int32_t> once(num_rows * 9), many(num_rows * 9);
      gather_histories(stored, query, 1, once.data());
      for (const std::size_t threads : {2, 5}) {
        gather_histories(stored, query, threads, many.data());
        require(once == many, "histories do not depend on threads");
      }
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

// Rows outside of all chunks, and lists and users outside of their values.
void check_refusals() {
  const std::vector<std::int32_t> values(4, 7);
  const std::int64_t starts[] = {0, 3};
  std::vector<std::int32_t> out(2 * 4);
  const auto gathers = [&](std::int64_t row, const std::int64_t* offsets) {
    const ColumnChunk chunk = {reinterpret_cast<const char*>(values.data()),
                               reinterpret_cast<const char*>(offsets),
                               StoredType::kInt32, true, values.size()};
    const GatheredColumn column = {{chunk},
                                   offsets == nullptr ? std::size_t{1} : 4,
                                   WideType::kInt32,
                                   reinterpret_cast<char*>(out.data())};
    const std::int64_t rows[] = {0, row};
    for (const std::size_t threads : {1, 3}) {
      if (!is_refused([&] { gather_rows(rows, 2, starts, 1, {column}, threads); })) {
        return true;
      }
    }
    return false;
  };
  const std::int64_t rising[] = {0, 1, 1, 4}, beyond[] = {0, 1, 1, 5},
                     falling[] = {0, 2, 1, 4}, negative[] = {0, 1, -9, 4};
  require(gathers(2, nullptr) && gathers(2, rising), "rows are gathered");
  for (const std::int64_t row : {-1, 3, 1 << 30}) {
    require(!gathers(row, nullptr) && !gathers(row, rising), "a row must be there");
  }
  require(!gathers(2, beyond) && !gathers(1, falling) && !gathers(1, negative),
          "lists must rise within their values");

  const std::int64_t times[] = {1, 2, 3, 4};
  const auto finds = [&](std::int64_t user, const std::int64_t* offsets) {
    const UserItems stored = {offsets, times, values.data(), 4, 3, 4};
    const HistoryQuery query = {&user, nullptr, 1, 4, -1};
    return !is_refused([&] { gather_histories(stored, query, 2, out.data()); });
  };
  require(finds(2, rising), "histories are gathered");
  require(!finds(-1, rising) && !finds(3, rising), "a user must be there");
  require(!finds(2, beyond) && !finds(1, falling) && !finds(1, negative),
          "items of a user must be there");
}

}  // namespace

int main() {
  check_rows({9000}, 20000);
  check_rows({5, 1, 4000, 30}, 9001);
  check_rows({5, 1}, 1);
  check_rows({5, 1}, 0);
  std::printf("rows of all number types and forms\n");
  for (const std::size_t num_items : {0, 1, 3000}) {
    check_histories<std::uint8_t>(num_items, 5000);
    check_histories<std::uint16_t>(num_items, 1);
    check_histories<std::int32_t>(num_items, 5000);
  }
  std::printf("histories\n");
  check_refusals();
  std::printf("refusals\n");
  return 0;
}
