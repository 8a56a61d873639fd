// One block of anchors against all columns: cosines, what they sum to, what they weigh.
#pragma once

#include <span>
#include <vector>

#include "kernels/packed.h"

namespace ssra {

// What the loss knows of each anchor (a query and its positive) at each level.
class Anchors {
 public:
  Anchors(int64_t count, int64_t levels);

  int64_t count() const { return count_; }
  int64_t levels() const { return levels_; }

  float* positives(int64_t level) { return at(positives_, level); }  // cosine of the positive
  float* ceilings(int64_t level) { return at(ceilings_, level); }    // cosines above are left out
  // The largest cosine in the denominator, and the sum of all terms but the positive's relative to
  // it. Apart, because the less is left to teach, the less the others sum to beside the positive.
  float* largest(int64_t level) { return at(largest_, level); }
  float* others(int64_t level) { return at(others_, level); }
  // Weight of a term that is as large as the largest, and of the positive.
  float* shares(int64_t level) { return at(shares_, level); }
  float* pulls(int64_t level) { return at(pulls_, level); }

 private:
  float* at(std::vector<float>& values, int64_t level) { return values.data() + level * padded_; }

  int64_t count_;
  int64_t levels_;
  int64_t padded_;
  std::vector<float> positives_;
  std::vector<float> ceilings_;
  std::vector<float> largest_;
  std::vector<float> others_;
  std::vector<float> shares_;
  std::vector<float> pulls_;
};

// How the rows of a block relate to the columns.
enum class Pairs {
  kCandidates,  // anchors against candidates: column i is the positive of row i
  kSymmetric,   // vectors of the anchors against each other: only columns from the block on
};

// Weights that are floats are multiplied where they are; others are rounded first.
template <class Factor>
constexpr bool kIsRounded = kTerms<Factor> > 1;

// Room for the block at hand, grown as blocks need it.
template <class Factor>
struct Workspace {
  std::vector<float> cosines;  // [level][row][column]
  // Rounded weights: [level][row][step over columns], [level][step over rows][column].
  std::vector<Factor> by_row;
  std::vector<Factor> by_column;
};

// Everything a pass over blocks works with. Products are made of factors.
template <class Factor>
struct Contrast {
  const Isa& isa;
  Anchors& anchors;
  PackedVectors<Factor>& rows;
  PackedVectors<Factor>& columns;
  std::span<const int64_t> dims;
  std::span<const Strip> strips;
  Pairs pairs;
  int64_t column_count;  // the first of the columns, which take part
  float inverse_temperature;
  int threads;
  Workspace<Factor>& workspace;
};

template <class Factor>
class ContrastBlock {
 public:
  static constexpr int64_t kRows = 96;  // a multiple of a panel

  ContrastBlock(const Contrast<Factor>& contrast, int64_t first_row);

  // Adds to the anchors' sums: those of the rows, and, where pairs are symmetric, of the columns.
  void add_to_sums();

  // Turns cosines into weights and adds their gradients. Returns the sum of weight * cosine.
  double add_gradients(const Matrix<float>& row_gradient, const Matrix<float>& column_gradient);

 private:
  float* cosines(int64_t level) {
    return contrast_.workspace.cosines.data() + level * block_.count() * stride_;
  }
  // The weights of a level as left sides of products over columns and over rows.
  Factor* weights_by_row(int64_t level);
  Factor* weights_by_column(int64_t level);
  int64_t own_column(int64_t row) const { return block_.first() + row - first_column_; }

  void multiply();
  void scale();
  double weigh();
  double pull_positives(const Matrix<float>& row_gradient, const Matrix<float>& column_gradient);
  void round_weights()
    requires kIsRounded<Factor>;
  void add_row_gradient(const Matrix<float>& gradient);
  void add_column_gradient(const Matrix<float>& gradient);

  const Contrast<Factor>& contrast_;
  RowBlock<Factor> block_;
  int64_t first_column_;
  int64_t width_;     // columns, padded
  int64_t stride_;    // from one row of cosines to the next
  int64_t mirrored_;  // first column whose pairs are seen only here, and count for both sides
};

}  // namespace ssra
