// NumPy arrays as the spans that kernels take. No conversion happens here: the Python side hands
// over the dtype and layout that a kernel wants, and anything else is a TypeError.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

#include "support/check.h"
#include "support/spans.h"

namespace ssra {

template <class T>
using Array = pybind11::array_t<T, 0>;

template <class T>
Matrix<const T> matrix(const Array<T>& array, const char* name) {
  require(array.ndim() == 2, name, ": expected a matrix, got ", array.ndim(), " dimension(s)");
  const auto size = static_cast<pybind11::ssize_t>(sizeof(T));
  const bool adjacent = array.size() == 0 || array.shape(1) == 1 || array.strides(1) == size;
  require(adjacent && array.strides(0) % size == 0 && array.strides(0) >= 0, name,
          ": values of a row must be adjacent in memory");
  return {array.data(), array.shape(0), array.shape(1), array.strides(0) / size};
}

template <class T>
Matrix<T> fresh_matrix(Array<T>& array) {
  return {array.mutable_data(), array.shape(0), array.shape(1), array.shape(1)};
}

template <class T>
std::span<const T> span(const Array<T>& array, const char* name) {
  require(array.ndim() == 1, name, ": expected one dimension, got ", array.ndim());
  require(array.shape(0) <= 1 || array.strides(0) == static_cast<pybind11::ssize_t>(sizeof(T)),
          name, ": values must be adjacent in memory");
  return {array.data(), static_cast<size_t>(array.shape(0))};
}

}  // namespace ssra
