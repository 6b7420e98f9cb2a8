// Converts the columns and rows of a call, releases the GIL and gathers.
//
// Shapes and ranges are checked in src/shortlist/data/gather_kernels.py, which also
// keeps the memory alive whose addresses it gives, and held by data/order.py.
#include "gather_bindings.h"

#include <nanobind/stl/string.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "array_bindings.h"
#include "history_gather.h"
#include "row_gather.h"
#include "row_order.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace shortlist {
namespace {

// One row for each chunk: address of the values, address of the offsets or 0, stored
// type, whether offsets are int64.
constexpr Py_ssize_t kChunkNumbers = 4;

std::vector<ColumnChunk> to_chunks(const Py_buffer& view) {
  const auto* numbers = static_cast<const std::int64_t*>(view.buf);
  std::vector<ColumnChunk> chunks;
  chunks.reserve(static_cast<std::size_t>(view.shape[0]));
  for (Py_ssize_t i = 0; i < view.shape[0]; ++i, numbers += kChunkNumbers) {
    chunks.push_back({reinterpret_cast<const char*>(numbers[0]),
                      reinterpret_cast<const char*>(numbers[1]),
                      static_cast<StoredType>(numbers[2]), numbers[3] != 0});
  }
  return chunks;
}

void gather_columns(nb::handle rows, nb::handle starts, const nb::list& columns,
                    const nb::list& outs, std::size_t threads) {
  Arrays arrays;
  const auto num_rows = static_cast<std::size_t>(arrays.get(rows).shape[0]);
  const auto* row = arrays.values<const std::int64_t>(rows);
  const auto num_chunks = static_cast<std::size_t>(arrays.get(starts).shape[0]) - 1;
  const auto* start = arrays.values<const std::int64_t>(starts);
  std::vector<GatheredColumn> gathered;
  gathered.reserve(columns.size());
  for (std::size_t i = 0; i < columns.size(); ++i) {
    const auto column = nb::borrow<nb::tuple>(columns[i]);
    gathered.push_back({to_chunks(arrays.get(column[0])),
                        nb::cast<std::size_t>(column[1]),
                        static_cast<WideType>(nb::cast<int>(column[2])),
                        arrays.values<char>(outs[i], true)});
  }
  nb::gil_scoped_release release;
  gather_rows(row, num_rows, start, num_chunks, gathered, threads);
}

void gather_lists_of_users(nb::handle offsets, nb::handle timestamps, nb::handle items,
                           nb::handle users, nb::handle moments, std::int64_t gap,
                           nb::handle out, std::size_t threads) {
  Arrays arrays;
  UserItems stored = {};
  stored.offsets = arrays.values<const std::int64_t>(offsets);
  stored.timestamps = arrays.values<const std::int64_t>(timestamps);
  const Py_buffer& item_view = arrays.get(items);
  stored.items = item_view.buf;
  stored.item_bytes = static_cast<std::size_t>(item_view.itemsize);
  HistoryQuery query = {};
  query.users = arrays.values<const std::int64_t>(users);
  query.moments = arrays.values<const std::int64_t>(moments);
  query.gap = gap;
  const Py_buffer& out_view = arrays.get(out, true);
  query.num_rows = static_cast<std::size_t>(out_view.shape[0]);
  query.length = static_cast<std::size_t>(out_view.shape[1]);
  auto* const lists = static_cast<std::int32_t*>(out_view.buf);
  nb::gil_scoped_release release;
  gather_histories(stored, query, threads, lists);
}

RowNetwork to_network(Arrays& arrays, nb::handle keys, std::uint64_t size,
                      std::uint64_t bits) {
  RowNetwork network = {};
  const auto* key = arrays.values<const std::uint64_t>(keys);
  std::copy(key, key + kOrderRounds, network.keys);
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
  const auto n = static_cast<std::size_t>(arrays.get(values).shape[0]);
  const auto* given = arrays.values<const std::int64_t>(values);
  auto* const moved = arrays.values<std::int64_t>(images, true);
  nb::gil_scoped_release release;
  permute_rows(network, given, n, first, backward, moved, instruction_set);
}

void order_blocks(nb::handle keys, std::uint64_t size, std::uint64_t bits,
                  nb::handle table, std::uint64_t block, std::uint64_t gap,
                  std::uint64_t after_gap, nb::handle positions, nb::handle rows,
                  const std::string& instruction_set) {
  Arrays arrays;
  const BlockOrder blocks = {block, gap, after_gap,
                             arrays.values<const std::int64_t>(table),
                             to_network(arrays, keys, size, bits)};
  const auto n = static_cast<std::size_t>(arrays.get(positions).shape[0]);
  const auto* given = arrays.values<const std::int64_t>(positions);
  auto* const row = arrays.values<std::int64_t>(rows, true);
  nb::gil_scoped_release release;
  rows_of_blocks(blocks, given, n, row, instruction_set);
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
