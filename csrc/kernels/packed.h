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

// How many steps a sum over `terms` terms takes.
template <class Factor>
constexpr int64_t steps_of(int64_t terms) {
  return (terms + kTerms<Factor> - 1) / kTerms<Factor>;
}

// Vectors for products over the columns of levels first to end: [group of vectors][step][vector].
template <class Factor>
class PackedColumns {
 public:
  PackedColumns(std::span<const int64_t> dims, int64_t first_level, int64_t end_level,
                int64_t group, int64_t count);

  void pack(int64_t i, const float* vector);

  const Factor* at(int64_t group, int64_t level) const {
    return factors_.data() + (group * steps_ + levels_[static_cast<size_t>(level)].step) * group_;
  }
  bool holds(int64_t level) const { return levels_[static_cast<size_t>(level)].columns > 0; }
  int64_t steps(int64_t level) const {
    return steps_of<Factor>(levels_[static_cast<size_t>(level)].columns);
  }

 private:
  // A level begins a step of its own.
  struct Level {
    int64_t begin;    // first column
    int64_t columns;  // none where the level is not packed here
    int64_t step;     // first step
  };

  std::vector<Level> levels_;
  int64_t group_;  // vectors
  int64_t steps_;
  std::vector<Factor> factors_;
};

// Rows as the left side of products: over columns in groups of 8, and over rows as the right side,
// [strip][step][padded width].
template <class Factor>
class RowBlock {
 public:
  RowBlock(const Stack& vectors, std::span<const int64_t> dims,
           std::span<const Strip> strips, int64_t first, int64_t count);

  int64_t first() const { return first_; }
  int64_t count() const { return count_; }
  int64_t tiles() const { return (count_ + kQueryTile - 1) / kQueryTile; }
  const PackedColumns<float>& exact() const { return exact_; }
  const PackedColumns<Factor>& columns() const { return columns_; }
  const Factor* strip(size_t s) const { return strips_.data() + offsets_[s]; }

 private:
  int64_t first_;
  int64_t count_;
  PackedColumns<float> exact_;
  PackedColumns<Factor> columns_;
  std::vector<Factor> strips_;
  std::vector<int64_t> offsets_;
};

// A whole set of vectors. Everything by row is padded to whole panels.
template <class Factor>
class PackedVectors {
 public:
  PackedVectors(const Stack& vectors, std::span<const int64_t> dims, bool as_columns, int threads);

  const Stack& vectors() const { return vectors_; }
  int64_t count() const { return vectors_.rows(); }
  int64_t padded() const { return padded_; }

  // As the right side of products: over columns in groups of 48, over rows [step][padded width].
  const PackedColumns<float>& exact() const { return exact_; }
  const PackedColumns<Factor>& columns() const { return columns_; }
  const Factor* strip(size_t s) const { return strips_.data() + offsets_[s]; }

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

  Stack vectors_;
  int64_t padded_;
  int64_t levels_;
  PackedColumns<float> exact_;
  PackedColumns<Factor> columns_;
  std::vector<Factor> strips_;
  std::vector<int64_t> offsets_;
  std::vector<float> scales_;
  std::vector<float> dots_;
};

}  // namespace ssra
