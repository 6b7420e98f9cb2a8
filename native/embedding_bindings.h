// Python bindings of the embedding kernels.
#ifndef SHORTLIST_EMBEDDING_BINDINGS_H_
#define SHORTLIST_EMBEDDING_BINDINGS_H_

#include <nanobind/nanobind.h>

namespace shortlist {

// Adds lookup(), update() and offsets_rise() to the module.
void bind_embeddings(nanobind::module_& m);

}  // namespace shortlist

#endif  // SHORTLIST_EMBEDDING_BINDINGS_H_
