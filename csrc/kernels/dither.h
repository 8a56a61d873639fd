// Rounding to eight bits whose error is random, small and known in distribution.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/isa.h"

namespace ssra {

// Subtractive dither. A row x is rounded to X_j = round(x_j / step + u_j) and stands for the vector
// step * (X - u), where u is drawn once, uniform in [-1/2, 1/2) and independent by column. Whatever
// x is, each column's error is then uniform within half a step, and independent of the others
// (Schuchman's condition), so that for any vector q and any t
//
//   P( q . error >= t * step * |q| ) <= exp(-6 t^2):
//
// a uniform variable is sub-Gaussian with its own variance, step^2 / 12. Rounding to nearest would
// leave the bound of Cauchy and Schwarz, which grows with the square root of the number of columns;
// a dither that is not subtracted leaves Hoeffding's, with 2 for 6. Documents share one draw u and
// queries another, v, so subtracting costs a constant a document and a constant a query:
//
//   (X - u) . (Q - v)  =  X.Q  -  X.v  -  u.Q  +  u.v
//
// and the error of the product is that of two independent sums,
//
//   q.x - q'.x'  =  q . (x - x')  +  (q - q') . x',       |x'| <= |x| + step sqrt(d) / 2.
enum class Side { kDocuments, kQueries };

class Dither {
 public:
  // Values are at most `levels` away from `levels` + 1, as unsigned bytes.
  Dither(int64_t d, Side side, int levels);

  int64_t offset() const { return levels_ + 1; }
  const std::vector<float>& draws() const { return draws_; }
  double sum_of_draws() const { return sum_; }

  // What Isa::quantize adds: the draw, the offset, and the half that turns floor into round.
  const float* shifts() const { return shifts_.data(); }

  // The step for a row whose largest absolute value is this.
  double step(float largest) const;

 private:
  int levels_;
  std::vector<float> draws_;
  std::vector<float> shifts_;
  double sum_ = 0;
};

// How many times step * |q| (and query step * |x'|, root of the sum of squares) an approximate
// product may lie from the true one, but for a probability of `failure` among `pairs` products.
double deviation(int64_t d, double pairs, double failure);

}  // namespace ssra
