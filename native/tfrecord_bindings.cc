// Converts the bytes and names of a call, releases the GIL and reads.
//
// src/shortlist/data/kernels/tfrecord.py is the only caller.
#include "tfrecord_bindings.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "checked_array_bindings.h"
#include "crc32c.h"
#include "tf_record.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace shortlist {
namespace {

using Buffer =
    nb::ndarray<const std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// An array that owns what the vector held.
template <typename T>
nb::object to_array(std::vector<T>&& values) {
  auto owned = std::make_unique<std::vector<T>>(std::move(values));
  T* data = owned->data();
  const std::size_t size = owned->size();
  nb::capsule owner(owned.get(),
                    [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  owned.release();
  return nb::cast(nb::ndarray<nb::numpy, T, nb::ndim<1>>(data, {size}, owner));
}

nb::object to_bytes(const std::string& text) {
  return nb::bytes(text.data(), text.size());
}

// (kind, counts, values, ends): `ends` for text only.
nb::tuple to_column(FeatureValues& column) {
  const int kind = static_cast<int>(column.kind);
  nb::object counts = to_array(std::move(column.counts));
  if (column.kind == ValueKind::kIntegers) {
    return nb::make_tuple(kind, counts, to_array(std::move(column.integers)),
                          nb::none());
  }
  if (column.kind == ValueKind::kFloats) {
    return nb::make_tuple(kind, counts, to_array(std::move(column.floats)), nb::none());
  }
  return nb::make_tuple(kind, counts, to_array(std::move(column.text)),
                        to_array(std::move(column.ends)));
}

nb::tuple read_block(Buffer data, const std::vector<nb::bytes>& features,
                     const std::vector<int>& kinds, bool only_these,
                     std::size_t threads) {
  std::vector<std::string> texts;
  for (const nb::bytes& name : features) texts.emplace_back(name.c_str(), name.size());
  const FeatureNames names(std::move(texts));
  require(names.size() == kinds.size(), "Every feature must have a kind.");
  std::vector<ValueKind> known;
  for (int kind : kinds) {
    require(kind >= 0 && kind <= static_cast<int>(ValueKind::kIntegers),
            "A kind must be none, text, floats or integers.");
    known.push_back(static_cast<ValueKind>(kind));
  }
  const Bytes bytes = {data.data(), data.shape(0)};
  RecordBlock block;
  {
    nb::gil_scoped_release release;
    block = read_records(bytes, names, known, only_these, threads);
  }
  nb::list columns;
  for (FeatureValues& column : block.columns) columns.append(to_column(column));
  const RecordFault& fault = block.fault;
  return nb::make_tuple(block.num_records, block.consumed, columns,
                        to_array(std::move(block.smallest)),
                        to_array(std::move(block.sharing)),
                        nb::make_tuple(static_cast<int>(fault.fault), fault.record,
                                       to_bytes(fault.feature)));
}

std::uint32_t checksum(Buffer data, bool portable) {
  const std::uint8_t* bytes = data.data();
  const std::size_t size = data.shape(0);
  nb::gil_scoped_release release;
  return portable ? crc32c_portable(bytes, size) : crc32c(bytes, size);
}

}  // namespace

void bind_tfrecord(nb::module_& m) {
  m.def("crc32c", &checksum, "data"_a.noconvert(), "portable"_a = false,
        "CRC-32C of bytes; `portable`: without the processor's instruction for it.");
  m.def("read_records", &read_block, "data"_a.noconvert(), "features"_a, "kinds"_a,
        "only_these"_a, "threads"_a,
        "Reads the whole records at the start of a block into columns.");
}

}  // namespace shortlist
