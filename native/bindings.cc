// Python bindings of the native core: convert, release the GIL and call.
//
// Only the kernel modules of the package call it, and they have the better messages.
// Shapes and ranges are checked here again, so that a wrong call is an exception.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>

#include "checked_array_bindings.h"
#include "data_bindings.h"
#include "dot_tile.h"
#include "embedding_bindings.h"
#include "gather_bindings.h"
#include "tfrecord_bindings.h"
#include "top_k.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

template <typename T>
using Vector = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <typename T>
using Matrix = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

void check_shapes(const Matrix<const float>& queries, const Matrix<const float>& items,
                  const Matrix<float>& scores, const Matrix<std::int32_t>& indices) {
  shortlist::require(queries.shape(1) == items.shape(1),
                     "Queries and items must have the same number of columns.");
  shortlist::require(items.shape(0) < std::size_t{1} << 31,
                     "There must be fewer than 2^31 items.");
  shortlist::require(
      scores.shape(0) == queries.shape(0) && indices.shape(0) == queries.shape(0) &&
          scores.shape(1) == indices.shape(1),
      "Scores and indices must have one row for every query, of one width.");
}

void check_exclusions(const std::optional<Vector<const std::int64_t>>& offsets,
                      const std::optional<Vector<const std::int32_t>>& indices,
                      std::size_t num_queries) {
  shortlist::require(offsets.has_value() == indices.has_value(),
                     "Exclusions must have offsets and indices.");
  if (!offsets) return;
  shortlist::require(offsets->shape(0) == num_queries + 1,
                     "There must be one offset more than queries.");
  const std::int64_t* offset = offsets->data();
  shortlist::require(
      offset[0] >= 0 && std::is_sorted(offset, offset + num_queries + 1) &&
          offset[num_queries] <= static_cast<std::int64_t>(indices->shape(0)),
      "The offsets of exclusions must rise within the indices.");
}

void top_k(Matrix<const float> queries, Matrix<const float> items,
           std::optional<Vector<const std::int64_t>> exclude_offsets,
           std::optional<Vector<const std::int32_t>> exclude_indices,
           Matrix<float> scores, Matrix<std::int32_t> indices, std::size_t threads,
           const std::string& instruction_set) {
  check_shapes(queries, items, scores, indices);
  check_exclusions(exclude_offsets, exclude_indices, queries.shape(0));
  const shortlist::DotKernel& kernel = shortlist::dot_kernel(instruction_set);
  const shortlist::TopKInput input = {
      queries.data(),
      queries.shape(0),
      items.data(),
      items.shape(0),
      items.shape(1),
      scores.shape(1),
      exclude_offsets ? exclude_offsets->data() : nullptr,
      exclude_indices ? exclude_indices->data() : nullptr,
  };
  float* scores_out = scores.data();
  std::int32_t* indices_out = indices.data();
  threads = std::max<std::size_t>(threads, 1);
  nb::gil_scoped_release release;
  shortlist::top_k(kernel, input, threads, scores_out, indices_out);
}

}  // namespace

NB_MODULE(_native, m) {
  // Maps of ids that a framework keeps until the interpreter ends are not a leak.
  nb::set_leak_warnings(false);
  m.doc() = "The compiled core of Shortlist. Call it through shortlist.native.";
  m.def("instruction_sets", &shortlist::instruction_sets,
        "Names of the instruction sets that this processor runs, best first.");
  m.def("top_k", &top_k, "queries"_a.noconvert(), "items"_a.noconvert(),
        "exclude_offsets"_a.noconvert().none(), "exclude_indices"_a.noconvert().none(),
        "scores"_a.noconvert(), "indices"_a.noconvert(), "threads"_a,
        "instruction_set"_a = "",
        "Fills scores and indices (q, k) with the best items of each query.");
  shortlist::bind_data(m);
  shortlist::bind_embeddings(m);
  shortlist::bind_gather(m);
  shortlist::bind_tfrecord(m);
}
