#include "support/spans.h"

#include "support/check.h"

namespace ssra {

void require_ragged(const Ragged& ragged, int64_t lists, const char* name) {
  const auto& offsets = ragged.offsets;
  require(static_cast<int64_t>(offsets.size()) == lists + 1, name, ": expected ", lists + 1,
          " offsets for ", lists, " queries, got ", offsets.size());
  require(offsets.front() == 0, name, ": the first offset is ", offsets.front(), ", not 0");
  for (size_t i = 1; i < offsets.size(); ++i)
    require(offsets[i] >= offsets[i - 1], name, ": offsets decrease at row ", i - 1);
  require(offsets.back() == static_cast<int64_t>(ragged.values.size()), name,
          ": the last offset is ", offsets.back(), ", but there are ", ragged.values.size(),
          " ids");
}

void require_usable(const Matrix<const float>& matrix, const char* name, int64_t first) {
  for (int64_t i = 0; i < matrix.rows; ++i) {
    const float* row = matrix.row(i);
    double squared_norm = 0;
    for (int64_t j = 0; j < matrix.cols; ++j)
      squared_norm += static_cast<double>(row[j]) * static_cast<double>(row[j]);
    if (is_usable(squared_norm)) [[likely]]
      continue;
    for (int64_t j = 0; j < matrix.cols; ++j)
      require(row[j] - row[j] == 0, name, ": row ", first + i, " holds ", row[j], " at column ", j);
    require(false, name, ": row ", first + i,
            " is too long for float32 inner products (squared norm ", squared_norm, ")");
  }
}

}  // namespace ssra
