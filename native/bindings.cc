// The Python face of the native core: converts, releases the GIL and calls.
//
// Shapes and ranges are checked in src/shortlist/native.py, the only caller.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <optional>
#include <string>

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

void top_k(Matrix<const float> queries, Matrix<const float> items,
           std::optional<Vector<const std::int64_t>> exclude_offsets,
           std::optional<Vector<const std::int32_t>> exclude_indices,
           Matrix<float> scores, Matrix<std::int32_t> indices, std::size_t threads,
           const std::string& instruction_set) {
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
  nb::gil_scoped_release release;
  shortlist::top_k(kernel, input, threads, scores_out, indices_out);
}

}  // namespace

NB_MODULE(_native, m) {
  // Maps of ids that a framework holds until the interpreter ends are no leak.
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
