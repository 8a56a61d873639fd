#include "kernels/dither.h"

#include <algorithm>
#include <cmath>

namespace ssra {

namespace {

constexpr double kSmallest = 1e-30;  // a row smaller than this in every column is rounded as if not
constexpr double kUnused = 0.6;      // levels left for the draw, and for the rounding of floats
constexpr double kBias = 0x1p-14;    // of a column's error, in steps: draws and products are floats
constexpr double kRounding = 0.01;   // what integer corrections add, in steps times |q|

// SplitMix64, one draw of 24 bits for each counter.
float draw(uint64_t counter) {
  uint64_t x = counter * 0x9e3779b97f4a7c15U;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
  return static_cast<float>((x ^ (x >> 31)) >> 40) * 0x1p-24F - 0.5F;
}

}  // namespace

Dither::Dither(int64_t d, Side side, int levels) : levels_(levels) {
  const uint64_t first = side == Side::kDocuments ? 1 : uint64_t{1} << 32;
  for (uint64_t j = 0; j < static_cast<uint64_t>(d); ++j) {
    draws_.push_back(draw(first + j));
    shifts_.push_back(draws_.back() + static_cast<float>(offset()) + 0.5F);
    sum_ += static_cast<double>(draws_.back());
  }
}

double Dither::step(float largest) const {
  return std::max(static_cast<double>(largest), kSmallest) / (levels_ - kUnused);
}

double deviation(int64_t d, double pairs, double failure) {
  // Two sides for each pair.
  return std::sqrt(std::log(2 * pairs / failure) / 6) +
         std::sqrt(2.0 * static_cast<double>(d)) * kBias + kRounding;
}

}  // namespace ssra
