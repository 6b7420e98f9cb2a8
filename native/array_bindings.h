// The array arguments of a call from Python. Knows nothing of their meaning.
//
// A call may have a hundred, so they are read through the buffer protocol, in a tenth
// of the time of nb::ndarray.
#ifndef SHORTLIST_ARRAY_BINDINGS_H_
#define SHORTLIST_ARRAY_BINDINGS_H_

#include <nanobind/nanobind.h>

#include <vector>

namespace shortlist {

// The arrays of one call, held until it is over. Destroyed with the GIL.
class Arrays {
 public:
  Arrays() = default;
  Arrays(const Arrays&) = delete;
  Arrays& operator=(const Arrays&) = delete;
  ~Arrays() {
    for (Py_buffer& view : views_) PyBuffer_Release(&view);
  }

  // The view stays valid until the next call of get().
  const Py_buffer& get(nanobind::handle array, bool writable = false) {
    Py_buffer view;
    const int flags = writable ? PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE | PyBUF_FORMAT
                               : PyBUF_C_CONTIGUOUS | PyBUF_FORMAT;
    if (PyObject_GetBuffer(array.ptr(), &view, flags) != 0)
      throw nanobind::python_error();
    views_.push_back(view);
    return views_.back();
  }

  template <typename T>
  T* values(nanobind::handle array, bool writable = false) {
    return array.is_none() ? nullptr : static_cast<T*>(get(array, writable).buf);
  }

 private:
  std::vector<Py_buffer> views_;
};

}  // namespace shortlist

#endif  // SHORTLIST_ARRAY_BINDINGS_H_
