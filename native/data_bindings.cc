// Converts the columns and arrays of a call, releases the GIL and calls the kernels.
//
// src/shortlist/data/kernels/ids.py is the only caller and has the better messages;
// here shapes, types and lengths are checked once more, so that a wrong call is an
// exception. A column comes as the parts of a pyarrow.Array: its offset and its
// buffers.
#include "data_bindings.h"

#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "array_bindings.h"
#include "arrow_columns.h"
#include "checked_array_bindings.h"
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
    require(buffers.size() >= 2, "A column must have two buffers at least.");
    require(offset <= kMost && size <= kMost, "A column must end in memory.");
    column_.size = size;
    column_.is_valid = {nullptr, offset};
    if (!buffers[0].is_none()) {
      const Span<const char> bits = bytes(buffers[0]);
      require(bits.size >= (offset + size + 7) / 8, "Short validity of a column.");
      column_.is_valid.bits = reinterpret_cast<const std::uint8_t*>(bits.data);
    }
    read_values(buffers, offset);
  }

  const Column& get() const { return column_; }

 private:
  static constexpr std::size_t kMost = std::size_t{1} << 56;

  void read_values(const nb::list& buffers, std::size_t offset);

  Span<const char> bytes(nb::handle buffer) {
    const Py_buffer& view = arrays_.get(buffer);
    return {static_cast<const char*>(view.buf), static_cast<std::size_t>(view.len)};
  }

  // The values of the column; no buffer is needed for none.
  template <typename Value>
  const Value* values(nb::handle buffer, std::size_t offset) {
    if (buffer.is_none()) {
      require(offset + column_.size == 0, "A column must have values.");
      return nullptr;
    }
    const Span<const char> all = bytes(buffer);
    require(all.size / sizeof(Value) >= offset + column_.size,
            "Short values of a column.");
    return reinterpret_cast<const Value*>(all.data) + offset;
  }

  Arrays arrays_;
  std::vector<TextBuffer> texts_;
  Column column_ = {};
};

template <>
void HeldColumn<IntColumn>::read_values(const nb::list& buffers, std::size_t offset) {
  column_.values = values<std::int64_t>(buffers[1], offset);
}

template <>
void HeldColumn<TextColumn>::read_values(const nb::list& buffers, std::size_t offset) {
  column_.views = values<TextView>(buffers[1], offset);
  for (std::size_t b = 2; b < buffers.size(); ++b) {
    const Span<const char> text = bytes(buffers[b]);
    texts_.push_back({text.data, text.size});
  }
  column_.buffers = texts_.data();
  column_.num_buffers = texts_.size();
}

template <typename Ids>
void add(IdMap<Ids>& map, const nb::list& buffers, std::size_t offset,
         nb::handle codes) {
  Arrays arrays;
  const auto out = vector_of<std::int32_t>(arrays, codes, "codes");
  const HeldColumn<typename Ids::Column> column(buffers, offset, out.size);
  nb::gil_scoped_release release;
  map.add(column.get(), out.data);
}

template <typename Ids>
void find(const IdMap<Ids>& map, const nb::list& buffers, std::size_t offset,
          nb::handle codes) {
  Arrays arrays;
  const auto out = vector_of<std::int32_t>(arrays, codes, "codes");
  const HeldColumn<typename Ids::Column> column(buffers, offset, out.size);
  nb::gil_scoped_release release;
  map.find(column.get(), out.data);
}

template <typename Column>
void hash(const nb::list& buffers, std::size_t offset, std::uint64_t seed,
          nb::handle hashes) {
  Arrays arrays;
  const auto out = vector_of<std::uint64_t>(arrays, hashes, "hashes");
  const HeldColumn<Column> column(buffers, offset, out.size);
  nb::gil_scoped_release release;
  hash_column(column.get(), seed, out.data);
}

// The code of any object; -1 if it cannot be in a map of numbers.
std::int32_t find_int(const IdMap<IntIds>& map, nb::handle id) {
  if (!PyIndex_Check(id.ptr())) return -1;
  const nb::object number = nb::steal(PyNumber_Index(id.ptr()));
  if (!number.is_valid()) throw nb::python_error();
  int overflow = 0;
  const long long value = PyLong_AsLongLongAndOverflow(number.ptr(), &overflow);
  return overflow != 0 ? -1 : map.find_one(value);
}

// The code of any object; -1 if it cannot be in a map of texts.
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

constexpr const char* kTooManyIds = "There must be as many ids as are asked for.";

void copy_ints(const IdMap<IntIds>& map, nb::handle ids) {
  Arrays arrays;
  const auto out = vector_of<std::int64_t>(arrays, ids, "ids");
  nb::gil_scoped_release release;
  map.read([&](const IntIds& from) {
    require(out.size <= from.size(), kTooManyIds);
    from.copy(out.size, out.data);
  });
}

std::size_t num_text_bytes(const IdMap<TextIds>& map, std::size_t count) {
  nb::gil_scoped_release release;
  return map.read([&](const TextIds& from) {
    require(count <= from.size(), kTooManyIds);
    return from.num_bytes(count);
  });
}

void copy_texts(const IdMap<TextIds>& map, nb::handle offsets, nb::handle bytes) {
  Arrays arrays;
  const auto out = vector_of<std::int64_t>(arrays, offsets, "offsets");
  const auto texts = vector_of<std::uint8_t>(arrays, bytes, "bytes");
  require(out.size > 0, "There must be one offset more than ids.");
  nb::gil_scoped_release release;
  map.read([&](const TextIds& from) {
    require(out.size - 1 <= from.size(), kTooManyIds);
    require(from.num_bytes(out.size - 1) <= texts.size, "Short memory for texts.");
    from.copy(out.size - 1, out.data, reinterpret_cast<char*>(texts.data));
  });
}

template <typename Ids>
nb::class_<IdMap<Ids>> bind_map(nb::module_& m, const char* name) {
  return nb::class_<IdMap<Ids>>(m, name)
      .def(
          "__init__",
          [](IdMap<Ids>* map, std::size_t most) {
            require(most < std::size_t{1} << 31, "A map holds up to 2^31 - 1 ids.");
            new (map) IdMap<Ids>(most);
          },
          "most"_a)
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
  const auto group = vector_of<const std::int32_t>(arrays, groups, "groups");
  const auto time = vector_of<const std::int64_t>(arrays, times, "times");
  const auto out = vector_of<std::int64_t>(arrays, order, "order");
  require(group.size == time.size && group.size == out.size,
          "Groups, times and order must have one length.");
  require(is_wide || group.size <= std::numeric_limits<std::uint32_t>::max(),
          "So many rows must be sorted with wide numbers.");
  const GroupedRows rows = {group.data, group.size, num_groups};
  nb::gil_scoped_release release;
  if (is_wide) {
    group_order<std::uint64_t>(rows, time.data, threads, out.data);
  } else {
    group_order<std::uint32_t>(rows, time.data, threads, out.data);
  }
}

void count_groups(nb::handle groups, std::size_t threads, nb::handle offsets) {
  Arrays arrays;
  const auto group = vector_of<const std::int32_t>(arrays, groups, "groups");
  const auto out = vector_of<std::int64_t>(arrays, offsets, "offsets");
  require(out.size > 0, "There must be one offset more than groups.");
  nb::gil_scoped_release release;
  group_offsets({group.data, group.size, out.size - 1}, threads, out.data);
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
