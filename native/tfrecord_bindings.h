// Python bindings of the TFRecord reader.
#ifndef SHORTLIST_TFRECORD_BINDINGS_H_
#define SHORTLIST_TFRECORD_BINDINGS_H_

#include <nanobind/nanobind.h>

namespace shortlist {

// Adds crc32c() and read_records() to the module.
void bind_tfrecord(nanobind::module_& m);

}  // namespace shortlist

#endif  // SHORTLIST_TFRECORD_BINDINGS_H_
