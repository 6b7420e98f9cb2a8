// Converts the columns and rows of a call, releases the GIL and gathers.
//
// Shapes and ranges are checked in src/shortlist/data/gather_kernels.py, the only
// caller, which also keeps the memory alive whose addresses it gives.
#include "gather_bindings.h"

#include <cstddef>
#include <cstdint>
#include <vector>

#include "array_bindings.h"
#include "history_gather.h"
#include "row_gather.h"

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

}  // namespace

void bind_gather(nb::module_& m) {
  m.def("gather_rows", &gather_columns, "rows"_a, "starts"_a, "columns"_a, "outs"_a,
        "threads"_a, "Fills the out of every column with the values of the rows.");
  m.def("gather_histories", &gather_lists_of_users, "offsets"_a, "timestamps"_a,
        "items"_a, "users"_a, "moments"_a.none(), "gap"_a, "out"_a, "threads"_a,
        "Fills out (n, length) with the newest items of users before moments.");
}

}  // namespace shortlist
