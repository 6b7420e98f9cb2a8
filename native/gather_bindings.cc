// Converts the columns and rows of a call, releases the GIL and gathers.
//
// src/shortlist/data/kernels/gather.py keeps the memory alive whose addresses it gives,
// and has the better messages; here shapes, types and lengths are checked once more, so
// that a wrong call is an exception.
#include "gather_bindings.h"

#include <nanobind/stl/string.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "array_bindings.h"
#include "checked_array_bindings.h"
#include "history_gather.h"
#include "row_gather.h"
#include "row_order.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace shortlist {
namespace {

// One row for each chunk: address of the values, address of the offsets or 0, stored
// type, whether offsets are int64, number of values and of offsets.
constexpr std::size_t kChunkNumbers = 6;

// The first row of each chunk and their end, checked.
Span<const std::int64_t> to_starts(Arrays& arrays, nb::handle array) {
  const auto starts = vector_of<const std::int64_t>(arrays, array, "starts");
  require(starts.size >= 2 && starts.data[0] == 0,
          "`starts` must begin with 0 and have the end of a chunk.");
  for (std::size_t c = 0; c + 1 < starts.size; ++c) {
    const std::int64_t rows = starts.data[c + 1] - starts.data[c];
    require(rows >= 0 && rows < std::int64_t{1} << 32,
            "Chunks must have fewer than 2^32 rows each.");
  }
  return starts;
}

bool may_become(std::int64_t stored, WideType wide) {
  const auto type = static_cast<StoredType>(stored);
  if (type >= StoredType::kFloat16) return wide == WideType::kFloat32;
  const bool is_wide = type == StoredType::kUint32 || type == StoredType::kInt64;
  return wide == WideType::kInt64 || (!is_wide && wide == WideType::kInt32);
}

std::vector<ColumnChunk> to_chunks(Arrays& arrays, nb::handle array,
                                   Span<const std::int64_t> starts, std::size_t width,
                                   WideType wide) {
  const auto grid = grid_of<const std::int64_t>(arrays, array, "chunks");
  require(grid.width == kChunkNumbers && grid.rows == starts.size - 1,
          "A column must have six numbers for every chunk.");
  std::vector<ColumnChunk> chunks;
  chunks.reserve(grid.rows);
  for (std::size_t c = 0; c < grid.rows; ++c) {
    const std::int64_t* numbers = grid.data + c * kChunkNumbers;
    const auto rows = static_cast<std::size_t>(starts.data[c + 1] - starts.data[c]);
    const auto num_values = static_cast<std::size_t>(numbers[4]);
    require(numbers[2] >= 0 && numbers[2] < static_cast<std::int64_t>(kStoredTypes) &&
                may_become(numbers[2], wide),
            "The numbers of a column must fit their wider type.");
    require((numbers[1] != 0) == (grid.data[1] != 0),
            "All chunks of a column must have offsets, or none.");
    require(numbers[1] != 0 ? static_cast<std::size_t>(numbers[5]) > rows
                            : width == 0 || num_values / width >= rows,
            "Short chunk of a column.");
    chunks.push_back({reinterpret_cast<const char*>(numbers[0]),
                      reinterpret_cast<const char*>(numbers[1]),
                      static_cast<StoredType>(numbers[2]), numbers[3] != 0,
                      num_values});
  }
  return chunks;
}

// Memory for `rows` lists of `width` numbers.
char* to_out(Arrays& arrays, nb::handle array, std::size_t rows, std::size_t width,
             WideType wide) {
  const Py_buffer& view = arrays.get(array, true);
  const bool fits = wide == WideType::kFloat32 ? holds<float>(view)
                    : wide == WideType::kInt64 ? holds<std::int64_t>(view)
                                               : holds<std::int32_t>(view);
  const auto bytes = static_cast<std::size_t>(view.len);
  require(fits && bytes == rows * width * size_of(wide),
          "The out of a column must have its rows, width and type.");
  return static_cast<char*>(view.buf);
}

void gather_columns(nb::handle rows, nb::handle starts, const nb::list& columns,
                    const nb::list& outs, std::size_t threads) {
  Arrays arrays;
  const auto row = vector_of<const std::int64_t>(arrays, rows, "rows");
  const auto start = to_starts(arrays, starts);
  require(columns.size() == outs.size(), "Every column must have an out.");
  std::vector<GatheredColumn> gathered;
  gathered.reserve(columns.size());
  for (std::size_t i = 0; i < columns.size(); ++i) {
    const nb::object given = columns[i];
    require(PyTuple_CheckExact(given.ptr()) && PyTuple_GET_SIZE(given.ptr()) == 3,
            "A column must be a tuple of chunks, width and type.");
    const auto column = nb::borrow<nb::tuple>(given);
    const auto width = nb::cast<std::size_t>(column[1]);
    const auto type = nb::cast<std::size_t>(column[2]);
    require(width < std::size_t{1} << 31 && type < kWideTypes,
            "A column must have a width below 2^31 and one of three types.");
    const auto wide = static_cast<WideType>(type);
    gathered.push_back({to_chunks(arrays, column[0], start, width, wide), width, wide,
                        to_out(arrays, outs[i], row.size, width, wide)});
  }
  nb::gil_scoped_release release;
  gather_rows(row.data, row.size, start.data, start.size - 1, gathered, threads);
}

void gather_lists_of_users(nb::handle offsets, nb::handle timestamps, nb::handle items,
                           nb::handle users, nb::handle moments, std::int64_t gap,
                           nb::handle out, std::size_t threads) {
  Arrays arrays;
  const auto offset = vector_of<const std::int64_t>(arrays, offsets, "offsets");
  const auto time = vector_of<const std::int64_t>(arrays, timestamps, "timestamps");
  const auto user = vector_of<const std::int64_t>(arrays, users, "users");
  const auto moment = vector_or_none<const std::int64_t>(arrays, moments, "moments");
  const auto lists = grid_of<std::int32_t>(arrays, out, "out");
  const Py_buffer& item = arrays.get(items);
  require(item.ndim == 1 && (holds<std::uint8_t>(item) || holds<std::uint16_t>(item) ||
                             holds<std::int32_t>(item)),
          "`items` must be a contiguous vector of uint8, uint16 or int32.");
  require(static_cast<std::size_t>(item.shape[0]) == time.size,
          "There must be one time for every item.");
  require(offset.size > 0, "There must be one offset more than users.");
  require(lists.rows == user.size, "There must be one list for every user.");
  require(moment.data == nullptr ? gap < 0 : moment.size == user.size,
          "There must be one moment for every user, for a gap at least.");
  const UserItems stored = {offset.data,     time.data,
                            item.buf,        static_cast<std::size_t>(item.itemsize),
                            offset.size - 1, time.size};
  const HistoryQuery query = {user.data, moment.data, user.size, lists.width, gap};
  nb::gil_scoped_release release;
  gather_histories(stored, query, threads, lists.data);
}

RowNetwork to_network(Arrays& arrays, nb::handle keys, std::uint64_t size,
                      std::uint64_t bits) {
  RowNetwork network = {};
  const auto key = vector_of<const std::uint64_t>(arrays, keys, "keys");
  require(key.size == kOrderRounds, "There must be one key for every round.");
  std::copy(key.data, key.data + kOrderRounds, network.keys);
  network.size = size;
  network.low_bits = bits / 2;
  network.high_bits = bits - bits / 2;
  return network;
}

void permute(nb::handle keys, std::uint64_t size, std::uint64_t bits, nb::handle values,
             std::int64_t first, bool backward, nb::handle images,
             const std::string& instruction_set) {
  Arrays arrays;
  const RowNetwork network = to_network(arrays, keys, size, bits);
  const auto given = vector_of<const std::int64_t>(arrays, values, "values");
  const auto moved = vector_of<std::int64_t>(arrays, images, "images");
  require(given.size == moved.size, "There must be one image for every value.");
  nb::gil_scoped_release release;
  permute_rows(network, given.data, given.size, first, backward, moved.data,
               instruction_set);
}

void order_blocks(nb::handle keys, std::uint64_t size, std::uint64_t bits,
                  nb::handle table, std::uint64_t block, std::uint64_t gap,
                  std::uint64_t after_gap, nb::handle positions, nb::handle rows,
                  const std::string& instruction_set) {
  Arrays arrays;
  const auto numbers = vector_or_none<const std::int64_t>(arrays, table, "table");
  const BlockOrder blocks = {block, gap, after_gap, numbers.data,
                             to_network(arrays, keys, size, bits)};
  const auto given = vector_of<const std::int64_t>(arrays, positions, "positions");
  const auto row = vector_of<std::int64_t>(arrays, rows, "rows");
  require(table.is_none() || numbers.size == size, "The table must have all blocks.");
  require(given.size == row.size, "There must be one row for every position.");
  nb::gil_scoped_release release;
  rows_of_blocks(blocks, given.data, given.size, row.data, instruction_set);
}

}  // namespace

void bind_gather(nb::module_& m) {
  m.def("gather_rows", &gather_columns, "rows"_a, "starts"_a, "columns"_a, "outs"_a,
        "threads"_a, "Fills the out of every column with the values of the rows.");
  m.def("gather_histories", &gather_lists_of_users, "offsets"_a, "timestamps"_a,
        "items"_a, "users"_a, "moments"_a.none(), "gap"_a, "out"_a, "threads"_a,
        "Fills out (n, length) with the newest items of users before moments.");
  m.def("permute_rows", &permute, "keys"_a, "size"_a, "bits"_a, "values"_a, "first"_a,
        "backward"_a, "images"_a, "instruction_set"_a = "",
        "Fills images (n,) with where a keyed bijection moves the values, or from"
        " where.");
  m.def("rows_of_blocks", &order_blocks, "keys"_a, "size"_a, "bits"_a, "table"_a.none(),
        "block"_a, "gap"_a, "after_gap"_a, "positions"_a, "rows"_a,
        "instruction_set"_a = "",
        "Fills rows (n,) with what stands at positions of blocks in random order.");
}

}  // namespace shortlist
