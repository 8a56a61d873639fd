// The graded contrastive loss over all Matryoshka dims at once, and its gradient.
#pragma once

#include <limits>
#include <span>

#include "support/spans.h"

namespace ssra {

// What the factors of products are rounded to; sums are floats.
enum class Products { kFloat32, kBfloat16 };

struct LossArguments {
  Matrix<const float> queries;     // [B, D]
  Matrix<const float> positives;   // [B, D], row i for query i
  Matrix<const float> negatives;   // [M, D], or nothing
  std::span<const float> grades;   // [B]
  std::span<const int64_t> dims;   // rising, the last at most D
  double temperature = 1;
  bool self_contrast = false;  // queries, and positives, also contrast among themselves
  double false_negative_margin = std::numeric_limits<double>::infinity();
  Products products = Products::kFloat32;
  bool gradients = true;
  int threads = 1;
};

struct LossResult {
  double loss = 0;
  double temperature_gradient = 0;
};

// Mean over dims of the mean over queries of grade * cross-entropy of the positive among the
// candidates, which are positives and negatives: cosines of the first `dim` columns over the temperature. With self-contrast, a
// query's denominator also holds its cosines with other queries, and those of its positive with
// other positives. A candidate other than the positive whose cosine exceeds the positive's by more
// than the margin is left out.
//
// Gradients, where wanted, are added to two matrices like the queries and like the candidates, [B + M,
// D]. No matrix of all pairs is
// ever held: memory is that of the packed inputs, and one block of rows at all dims. The result
// does not depend on the number of threads.
//
// With products in bfloat16, vectors are rounded before they are multiplied, and so are the weights
// of pairs in the gradient. Lengths, the cosine of the positive and what it weighs, and cosines at
// dims up to 256 are not touched by that.
LossResult graded_infonce(const LossArguments& arguments, const Matrix<float>& query_gradient,
                          const Matrix<float>& candidate_gradient);

}  // namespace ssra
