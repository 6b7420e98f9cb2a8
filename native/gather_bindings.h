// Python bindings of the gathers.
#ifndef SHORTLIST_GATHER_BINDINGS_H_
#define SHORTLIST_GATHER_BINDINGS_H_

#include <nanobind/nanobind.h>

namespace shortlist {

// Adds gather_rows() and gather_histories() to the module.
void bind_gather(nanobind::module_& m);

}  // namespace shortlist

#endif  // SHORTLIST_GATHER_BINDINGS_H_
