// The array arguments of a call from Python, with their shapes and number types
// checked. Knows nothing of their meaning.
#ifndef SHORTLIST_CHECKED_ARRAY_BINDINGS_H_
#define SHORTLIST_CHECKED_ARRAY_BINDINGS_H_

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "array_bindings.h"

namespace shortlist {

// Throws std::invalid_argument, in Python a ValueError, unless `holds`.
inline void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

template <typename T>
struct Span {
  T* data;
  std::size_t size;
};

template <typename T>
struct Grid {
  T* data;
  std::size_t rows;
  std::size_t width;
};

// The character of the struct module that tells the number type, without byte order.
inline char format_of(const Py_buffer& view) {
  const char* format = view.format == nullptr ? "B" : view.format;
  if (*format == '<' || *format == '=' || *format == '@') ++format;
  return std::strlen(format) == 1 ? *format : '\0';
}

enum class NumberKind { kSigned, kUnsigned, kFloat, kOther };

inline NumberKind kind_of(const Py_buffer& view) {
  const char format = format_of(view);
  if (format == '\0') return NumberKind::kOther;
  if (std::strchr("bhilqn", format) != nullptr) return NumberKind::kSigned;
  if (std::strchr("BHILQN", format) != nullptr) return NumberKind::kUnsigned;
  if (std::strchr("efd", format) != nullptr) return NumberKind::kFloat;
  return NumberKind::kOther;
}

template <typename T>
bool holds(const Py_buffer& view) {
  const NumberKind kind = std::is_floating_point<T>::value ? NumberKind::kFloat
                          : std::is_signed<T>::value       ? NumberKind::kSigned
                                                           : NumberKind::kUnsigned;
  return kind_of(view) == kind && view.itemsize == sizeof(T);
}

[[noreturn]] inline void refuse(const char* name, int ndim) {
  throw std::invalid_argument(
      std::string("`") + name + "` must be a contiguous array " +
      (ndim == 1 ? "(n,)" : "(n, m)") + " of the number type that the call asks for.");
}

// A contiguous vector of numbers of type T.
template <typename T>
Span<T> vector_of(Arrays& arrays, nanobind::handle array, const char* name) {
  using Number = std::remove_const_t<T>;
  const Py_buffer& view = arrays.get(array, !std::is_const<T>::value);
  if (view.ndim != 1 || !holds<Number>(view)) refuse(name, 1);
  return {static_cast<T*>(view.buf), static_cast<std::size_t>(view.shape[0])};
}

// The same, or nothing for None.
template <typename T>
Span<T> vector_or_none(Arrays& arrays, nanobind::handle array, const char* name) {
  if (array.is_none()) return {nullptr, 0};
  return vector_of<T>(arrays, array, name);
}

// A contiguous matrix of numbers of type T.
template <typename T>
Grid<T> grid_of(Arrays& arrays, nanobind::handle array, const char* name) {
  using Number = std::remove_const_t<T>;
  const Py_buffer& view = arrays.get(array, !std::is_const<T>::value);
  if (view.ndim != 2 || !holds<Number>(view)) refuse(name, 2);
  return {static_cast<T*>(view.buf), static_cast<std::size_t>(view.shape[0]),
          static_cast<std::size_t>(view.shape[1])};
}

}  // namespace shortlist

#endif  // SHORTLIST_CHECKED_ARRAY_BINDINGS_H_
