// Converts the columns and arrays of a call, releases the GIL and calls the kernels.
//
// Types and ranges are checked in src/shortlist/data/kernels.py, the only caller. A
// column comes as the parts of a pyarrow.Array: its offset and its buffers.
#include "data_bindings.h"

#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "array_bindings.h"
#include "arrow_columns.h"
#include "group_order.h"
#include "hashing.h"
#include "id_map.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace shortlist {
namespace {

// A column of one call and the buffers it is read from. Destroyed with the GIL.
template <typename Column>
class HeldColumn {
 public:
  // The first two of the buffers are the validity, if any, and the values or views.
  HeldColumn(const nb::list& buffers, std::size_t offset, std::size_t size) {
    column_.size = size;
    column_.is_valid = {arrays_.values<const std::uint8_t>(buffers[0]), offset};
    read_values(buffers, offset);
  }

  const Column& get() const { return column_; }

 private:
  void read_values(const nb::list& buffers, std::size_t offset);

  Arrays arrays_;
  std::vector<const char*> texts_;
  Column column_ = {};
};

template <>
void HeldColumn<IntColumn>::read_values(const nb::list& buffers, std::size_t offset) {
  column_.values = arrays_.values<const std::int64_t>(buffers[1]) + offset;
}

template <>
void HeldColumn<TextColumn>::read_values(const nb::list& buffers, std::size_t offset) {
  column_.views = arrays_.values<const TextView>(buffers[1]) + offset;
  for (std::size_t b = 2; b < buffers.size(); ++b) {
    texts_.push_back(arrays_.values<const char>(buffers[b]));
  }
  column_.buffers = texts_.data();
}

template <typename T>
struct Filled {
  T* values;
  std::size_t size;
};

template <typename T>
Filled<T> to_fill(nb::handle array, Arrays& arrays) {
  const Py_buffer& view = arrays.get(array, true);
  return {static_cast<T*>(view.buf), static_cast<std::size_t>(view.shape[0])};
}

template <typename Ids>
void add(IdMap<Ids>& map, const nb::list& buffers, std::size_t offset,
         nb::handle codes) {
  Arrays arrays;
  const Filled<std::int32_t> out = to_fill<std::int32_t>(codes, arrays);
  const HeldColumn<typename Ids::Column> column(buffers, offset, out.size);
  nb::gil_scoped_release release;
  map.add(column.get(), out.values);
}

template <typename Ids>
void find(const IdMap<Ids>& map, const nb::list& buffers, std::size_t offset,
          nb::handle codes) {
  Arrays arrays;
  const Filled<std::int32_t> out = to_fill<std::int32_t>(codes, arrays);
  const HeldColumn<typename Ids::Column> column(buffers, offset, out.size);
  nb::gil_scoped_release release;
  map.find(column.get(), out.values);
}

template <typename Column>
void hash(const nb::list& buffers, std::size_t offset, std::uint64_t seed,
          nb::handle hashes) {
  Arrays arrays;
  const Filled<std::uint64_t> out = to_fill<std::uint64_t>(hashes, arrays);
  const HeldColumn<Column> column(buffers, offset, out.size);
  nb::gil_scoped_release release;
  hash_column(column.get(), seed, out.values);
}

// The code of any object; -1 for what no map of numbers holds.
std::int32_t find_int(const IdMap<IntIds>& map, nb::handle id) {
  if (!PyIndex_Check(id.ptr())) return -1;
  const nb::object number = nb::steal(PyNumber_Index(id.ptr()));
  if (!number.is_valid()) throw nb::python_error();
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(number.ptr(), &overflow);
  return overflow != 0 ? -1 : map.find_one(value);
}

// The code of any object; -1 for what no map of texts holds.
std::int32_t find_text(const IdMap<TextIds>& map, nb::handle id) {
  if (!PyUnicode_Check(id.ptr())) return -1;
  Py_ssize_t size = 0;
  const char* bytes = PyUnicode_AsUTF8AndSize(id.ptr(), &size);
  if (bytes == nullptr) {  // half of a surrogate pair
    PyErr_Clear();
    return -1;
  }
  const auto length = static_cast<std::size_t>(size);
  if (length > std::numeric_limits<std::uint32_t>::max()) return -1;
  return map.find_one(TextIds::id({bytes, length}));
}

void copy_ints(const IdMap<IntIds>& map, nb::handle ids) {
  Arrays arrays;
  const Filled<std::int64_t> out = to_fill<std::int64_t>(ids, arrays);
  nb::gil_scoped_release release;
  map.read([&](const IntIds& from) { from.copy(out.size, out.values); });
}

std::size_t num_text_bytes(const IdMap<TextIds>& map, std::size_t count) {
  nb::gil_scoped_release release;
  return map.read([&](const TextIds& from) { return from.num_bytes(count); });
}

void copy_texts(const IdMap<TextIds>& map, nb::handle offsets, nb::handle bytes) {
  Arrays arrays;
  const Filled<std::int64_t> out = to_fill<std::int64_t>(offsets, arrays);
  char* const texts = to_fill<char>(bytes, arrays).values;
  nb::gil_scoped_release release;
  map.read([&](const TextIds& from) { from.copy(out.size - 1, out.values, texts); });
}

template <typename Ids>
nb::class_<IdMap<Ids>> bind_map(nb::module_& m, const char* name) {
  return nb::class_<IdMap<Ids>>(m, name)
      .def(nb::init<std::size_t>(), "most"_a)
      .def("__len__", &IdMap<Ids>::size)
      .def("add", &add<Ids>, "buffers"_a, "offset"_a, "codes"_a,
           "Fills codes (n,) int32; new ids get the next ones.")
      .def("find", &find<Ids>, "buffers"_a, "offset"_a, "codes"_a,
           "Fills codes (n,) int32; -1 for ids that are not here.");
}

void update_hash(StreamHash& hash, nb::handle piece) {
  Arrays arrays;
  const Py_buffer& view = arrays.get(piece);
  const std::string_view bytes(static_cast<const char*>(view.buf),
                               static_cast<std::size_t>(view.len));
  nb::gil_scoped_release release;
  hash.update(bytes);
}

void order_groups(nb::handle groups, nb::handle times, std::size_t num_groups,
                  bool is_wide, std::size_t threads, nb::handle order) {
  Arrays arrays;
  const auto* group_values = arrays.values<const std::int32_t>(groups);
  const auto* time_values = arrays.values<const std::int64_t>(times);
  const Filled<std::int64_t> out = to_fill<std::int64_t>(order, arrays);
  const GroupedRows rows = {group_values, out.size, num_groups};
  nb::gil_scoped_release release;
  if (is_wide) {
    group_order<std::uint64_t>(rows, time_values, threads, out.values);
  } else {
    group_order<std::uint32_t>(rows, time_values, threads, out.values);
  }
}

void count_groups(nb::handle groups, std::size_t threads, nb::handle offsets) {
  Arrays arrays;
  const Py_buffer& view = arrays.get(groups);
  const auto* values = static_cast<const std::int32_t*>(view.buf);
  const auto num_rows = static_cast<std::size_t>(view.shape[0]);
  const Filled<std::int64_t> out = to_fill<std::int64_t>(offsets, arrays);
  nb::gil_scoped_release release;
  group_offsets({values, num_rows, out.size - 1}, threads, out.values);
}

}  // namespace

void bind_data(nb::module_& m) {
  bind_map<IntIds>(m, "IntMap")
      .def("find_one", &find_int, "id"_a.none())
      .def("copy_ids", &copy_ints, "ids"_a, "Fills ids (n,) int64 with the first n.");
  bind_map<TextIds>(m, "TextMap")
      .def("find_one", &find_text, "id"_a.none())
      .def("num_bytes", &num_text_bytes, "count"_a, "Bytes of the first `count` ids.")
      .def("copy_ids", &copy_texts, "offsets"_a, "bytes"_a,
           "Fills offsets (n + 1,) int64 and bytes with the first n.");
  m.def("hash_ints", &hash<IntColumn>, "buffers"_a, "offset"_a, "seed"_a, "hashes"_a,
        "Fills hashes (n,) uint64 with XXH64 of the decimal texts.");
  m.def("hash_texts", &hash<TextColumn>, "buffers"_a, "offset"_a, "seed"_a, "hashes"_a,
        "Fills hashes (n,) uint64 with XXH64.");
  nb::class_<StreamHash>(m, "StreamHash")
      .def(nb::init<std::uint64_t>(), "seed"_a)
      .def("update", &update_hash, "piece"_a)
      .def("digest", &StreamHash::digest);
  m.def("group_order", &order_groups, "groups"_a, "times"_a, "num_groups"_a,
        "is_wide"_a, "threads"_a, "order"_a, "Fills order (n,) int64.");
  m.def("group_offsets", &count_groups, "groups"_a, "threads"_a, "offsets"_a,
        "Fills offsets (num_groups + 1,) int64.");
}

}  // namespace shortlist
