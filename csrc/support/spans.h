// Views of memory that somebody else owns.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>

namespace ssra {

// A row-major matrix: rows may be apart by more than their length, values in a row are adjacent.
template <class T>
struct Matrix {
  T* data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;  // elements from one row to the next

  T* row(int64_t i) const {
    assert(i >= 0 && i < rows);
    return data + i * stride;
  }
};

// Two matrices of equally long rows as one: rows of the second follow those of the first.
struct Stack {
  Matrix<const float> first;
  Matrix<const float> second = {};

  int64_t rows() const { return first.rows + second.rows; }
  int64_t cols() const { return first.cols; }
  const float* row(int64_t i) const {
    return i < first.rows ? first.row(i) : second.row(i - first.rows);
  }
};

// Lists of different lengths: list i is values[offsets[i] .. offsets[i + 1]].
struct Ragged {
  std::span<const int64_t> offsets;  // one more than there are lists
  std::span<const int64_t> values;

  std::span<const int64_t> operator[](int64_t i) const {
    assert(i >= 0 && i + 1 < static_cast<int64_t>(offsets.size()));
    const auto begin = static_cast<size_t>(offsets[static_cast<size_t>(i)]);
    const auto end = static_cast<size_t>(offsets[static_cast<size_t>(i) + 1]);
    return values.subspan(begin, end - begin);
  }
};

// Throws unless the offsets describe `lists` lists within `values`.
void require_ragged(const Ragged& ragged, int64_t lists, const char* name);

// Whether a row of this squared norm has finite inner products with others of its kind: by
// Cauchy-Schwarz, every partial sum is below 1e37. False for a row that holds NaN or infinity.
inline bool is_usable(double squared_norm) {
  return squared_norm <= 1e37;
}

// Throws unless every row is usable in that sense; rows are counted from `first`.
void require_usable(const Matrix<const float>& matrix, const char* name, int64_t first = 0);

}  // namespace ssra
