#include "kernels/packed.h"

#include <algorithm>
#include <cmath>

#include "support/parallel.h"

namespace ssra {

namespace {

constexpr double kShortest = 1e-12;

int64_t round_up(int64_t count, int64_t multiple) {
  return (count + multiple - 1) / multiple * multiple;
}

// Where each strip of `rows` rows begins, and where the last one ends.
std::vector<int64_t> offsets_of(std::span<const Strip> strips, int64_t rows) {
  std::vector<int64_t> offsets = {0};
  for (const Strip& strip : strips)
    offsets.push_back(offsets.back() + strip.padded * rows);
  return offsets;
}

}  // namespace

std::vector<Strip> strips_of(std::span<const int64_t> dims) {
  std::vector<Strip> strips;
  int64_t begin = 0;
  for (size_t level = 0; level < dims.size(); ++level)
    while (begin < dims[level]) {
      const int64_t width = std::min(kPanel, dims[level] - begin);
      strips.push_back({static_cast<int64_t>(level), begin, width, round_up(width, 16)});
      begin += width;
    }
  return strips;
}

RowBlock::RowBlock(const Matrix<const float>& vectors, std::span<const Strip> strips, int64_t first,
                   int64_t count)
    : first_(first),
      count_(count),
      columns_(vectors.cols),
      tiles_(static_cast<size_t>(round_up(count, kQueryTile) * vectors.cols)),
      offsets_(offsets_of(strips, count)) {
  strips_.resize(static_cast<size_t>(offsets_.back()));
  for (int64_t i = 0; i < count; ++i) {
    const float* row = vectors.row(first + i);
    float* tile = tiles_.data() + i / kQueryTile * columns_ * kQueryTile + i % kQueryTile;
    for (int64_t j = 0; j < columns_; ++j)
      tile[j * kQueryTile] = row[j];
    for (size_t s = 0; s < strips.size(); ++s)
      std::copy_n(row + strips[s].begin, strips[s].width,
                  strips_.data() + offsets_[s] + i * strips[s].padded);
  }
}

PackedVectors::PackedVectors(const Matrix<const float>& vectors, std::span<const int64_t> dims,
                             bool as_columns, int threads)
    : vectors_(vectors),
      padded_(round_up(vectors.rows, kPanel)),
      levels_(static_cast<int64_t>(dims.size())),
      scales_(static_cast<size_t>(levels_ * padded_)),
      dots_(static_cast<size_t>(levels_ * padded_)) {
  const std::vector<Strip> strips = strips_of(dims);
  offsets_ = offsets_of(strips, padded_);
  if (as_columns) {
    panels_.resize(static_cast<size_t>(padded_ * vectors.cols));
    strips_.resize(static_cast<size_t>(offsets_.back()));
  }
  parallel_for(padded_ / kPanel, threads, [&](int64_t p) {
    for (int64_t i = p * kPanel; i < std::min(vectors.rows, (p + 1) * kPanel); ++i) {
      measure(i, dims);
      if (!as_columns)
        continue;
      const float* row = vectors.row(i);
      float* panel = panels_.data() + p * vectors.cols * kPanel + i % kPanel;
      for (int64_t j = 0; j < vectors.cols; ++j)
        panel[j * kPanel] = row[j];
      for (size_t s = 0; s < strips.size(); ++s)
        std::copy_n(row + strips[s].begin, strips[s].width,
                    strips_.data() + offsets_[s] + i * strips[s].padded);
    }
  });
}

void PackedVectors::measure(int64_t row, std::span<const int64_t> dims) {
  const float* values = vectors_.row(row);
  double squared_norm = 0;
  int64_t j = 0;
  for (size_t level = 0; level < dims.size(); ++level) {
    for (; j < dims[level]; ++j)
      squared_norm += static_cast<double>(values[j]) * static_cast<double>(values[j]);
    scales_[level * static_cast<size_t>(padded_) + static_cast<size_t>(row)] =
        static_cast<float>(1 / std::max(std::sqrt(squared_norm), kShortest));
  }
}

void PackedVectors::subtract_projections(std::span<const Strip> strips, int threads,
                                         const Matrix<float>& gradient) const {
  constexpr int64_t kRows = 64;
  parallel_for((count() + kRows - 1) / kRows, threads, [&](int64_t task) {
    for (int64_t i = task * kRows; i < std::min(count(), (task + 1) * kRows); ++i) {
      const float* row = vectors_.row(i);
      float* out = gradient.row(i);
      int64_t level = levels_;
      double along = 0;  // summed over this level and all above, which hold its columns too
      for (size_t s = strips.size(); s-- > 0;) {
        while (level > strips[s].level) {
          --level;
          const auto at = static_cast<size_t>(level * padded_ + i);
          const auto scale = static_cast<double>(scales_[at]);
          // A length that was raised to its floor is a constant.
          if (scale * kShortest < 1)
            along += scale * scale * static_cast<double>(dots_[at]);
        }
        for (int64_t j = strips[s].begin; j < strips[s].begin + strips[s].width; ++j)
          out[j] -= static_cast<float>(along * static_cast<double>(row[j]));
      }
    }
  });
}

}  // namespace ssra
