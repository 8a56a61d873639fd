// Vectors packed for products, with what the loss knows and learns about them at each level.
#pragma once

#include <span>
#include <vector>

#include "kernels/isa.h"
#include "support/memory.h"
#include "support/spans.h"

namespace ssra {

// A level is one Matryoshka dim: the vectors cut after that many columns. Its own columns are those
// that the level before does not have.
//
// A strip is a run of at most 48 columns that belong to one level: what one product tile is wide.
struct Strip {
  int64_t level;
  int64_t begin;   // first column
  int64_t width;   // columns
  int64_t padded;  // the same, up to a multiple of 16
};

std::vector<Strip> strips_of(std::span<const int64_t> dims);

// Rows as the left side of products: [tile of 8][column][8], and as the right side of products over
// rows: [strip][row][padded width].
class RowBlock {
 public:
  RowBlock(const Matrix<const float>& vectors, std::span<const Strip> strips, int64_t first,
           int64_t count);

  int64_t first() const { return first_; }
  int64_t count() const { return count_; }
  int64_t tiles() const { return (count_ + kQueryTile - 1) / kQueryTile; }
  const float* tile(int64_t t) const { return tiles_.data() + t * columns_ * kQueryTile; }
  const float* strip(size_t s) const { return strips_.data() + offsets_[s]; }

 private:
  int64_t first_;
  int64_t count_;
  int64_t columns_;
  std::vector<float> tiles_;
  std::vector<float> strips_;
  std::vector<int64_t> offsets_;
};

// A whole set of vectors. Everything by row is padded to whole panels.
class PackedVectors {
 public:
  PackedVectors(const Matrix<const float>& vectors, std::span<const int64_t> dims, bool as_columns,
                int threads);

  const Matrix<const float>& vectors() const { return vectors_; }
  int64_t count() const { return vectors_.rows; }
  int64_t padded() const { return padded_; }

  // As the right side of products: a panel [column][48], a strip [row][padded width].
  const float* panel(int64_t p) const { return panels_.data() + p * vectors_.cols * kPanel; }
  const float* strip(size_t s) const { return strips_.data() + offsets_[s]; }

  // One over the length, by row; zero for padding. A length below 1e-12 counts as 1e-12, as in
  // torch.nn.functional.normalize.
  const float* scales(int64_t level) const { return scales_.data() + level * padded_; }
  // Sums of weight * cosine, by row, for subtract_projections().
  float* dots(int64_t level) { return dots_.data() + level * padded_; }

  // The gradient of a cosine is orthogonal to the vector: takes from `gradient` what the weights
  // put along it.
  void subtract_projections(std::span<const Strip> strips, int threads,
                            const Matrix<float>& gradient) const;

 private:
  void measure(int64_t row, std::span<const int64_t> dims);

  Matrix<const float> vectors_;
  int64_t padded_;
  int64_t levels_;
  std::vector<float> panels_;
  std::vector<float> strips_;
  std::vector<int64_t> offsets_;
  std::vector<float> scales_;
  std::vector<float> dots_;
};

}  // namespace ssra
