// Python bindings of the data kernels.
#ifndef SHORTLIST_DATA_BINDINGS_H_
#define SHORTLIST_DATA_BINDINGS_H_

#include <nanobind/nanobind.h>

namespace shortlist {

// Adds IntMap, TextMap, StreamHash, hash_ints(), hash_texts(), group_order() and
// group_offsets() to the module.
void bind_data(nanobind::module_& m);

}  // namespace shortlist

#endif  // SHORTLIST_DATA_BINDINGS_H_
