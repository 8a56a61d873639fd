// Loops over single rows, in portable code that each instruction set's file compiles for itself.
// Everything is in an unnamed namespace, so that no copy compiled for one processor is linked into
// the code for another; for the same reason nothing here calls the standard library.
#pragma once

#include "kernels/isa.h"

namespace ssra {
namespace {

// Sixteen lanes: one register of AVX-512, two of AVX2, four of SSE.
constexpr int64_t kLanes = 16;
using Floats [[gnu::vector_size(64)]] = float;
using Signed [[gnu::vector_size(64)]] = int32_t;
using Halves [[gnu::vector_size(32)]] = int16_t;
using Bytes [[gnu::vector_size(16)]] = uint8_t;
using Doubles [[gnu::vector_size(64)]] = double;
using HalfFloats [[gnu::vector_size(32)]] = float;
using HalfSigned [[gnu::vector_size(32)]] = int32_t;

template <class Vector, class T>
inline Vector load(const T* values) {
  Vector vector;
  __builtin_memcpy(&vector, values, sizeof vector);
  return vector;
}

inline float fold(Floats lanes) {
  for (int64_t width = kLanes / 2; width > 0; width /= 2)
    for (int64_t lane = 0; lane < width; ++lane)
      lanes[lane] += lanes[lane + width];
  return lanes[0];
}

inline RowSummary summarize(const float* row, int64_t d) {
  Floats largest = {};
  Doubles sums[2] = {};
  int64_t j = 0;
  for (; j + kLanes <= d; j += kLanes) {
    const Floats values = load<Floats>(row + j);
    const Floats magnitudes = values < 0 ? -values : values;
    largest = magnitudes > largest ? magnitudes : largest;
    for (int half = 0; half < 2; ++half) {
      const Doubles wide = __builtin_convertvector(load<HalfFloats>(row + j + 8 * half), Doubles);
      sums[half] += wide * wide;
    }
  }
  RowSummary summary{0, 0};
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    summary.largest = largest[lane] > summary.largest ? largest[lane] : summary.largest;
    summary.squared_norm += sums[lane / 8][lane % 8];
  }
  for (; j < d; ++j) {
    const float magnitude = row[j] < 0 ? -row[j] : row[j];
    summary.largest = magnitude > summary.largest ? magnitude : summary.largest;
    summary.squared_norm += static_cast<double>(row[j]) * static_cast<double>(row[j]);
  }
  return summary;
}

inline void quantize(const float* row, int64_t d, float inverse_scale, const float* shifts,
                     uint8_t* out) {
  int64_t j = 0;
  for (; j + kLanes <= d; j += kLanes) {
    const Floats scaled = load<Floats>(row + j) * inverse_scale + load<Floats>(shifts + j);
    // Positive, so truncation is floor.
    const Signed whole = __builtin_convertvector(scaled, Signed);
    const Bytes bytes = __builtin_convertvector(whole, Bytes);
    __builtin_memcpy(out + j, &bytes, sizeof bytes);
  }
  for (; j < d; ++j)
    out[j] = static_cast<uint8_t>(row[j] * inverse_scale + shifts[j]);
}

inline float weigh(const uint8_t* bytes, int64_t d, const float* weights) {
  Floats sums = {};
  int64_t j = 0;
  for (; j + kLanes <= d; j += kLanes) {
    const Signed whole = __builtin_convertvector(load<Bytes>(bytes + j), Signed);
    sums += __builtin_convertvector(whole, Floats) * load<Floats>(weights + j);
  }
  float sum = fold(sums);
  for (; j < d; ++j)
    sum += static_cast<float>(bytes[j]) * weights[j];
  return sum;
}

inline void inner_products(const float* vector, const float* const* rows, int64_t d, float* out) {
  Floats sums[kRowsAtOnce] = {};
  int64_t j = 0;
  for (; j + kLanes <= d; j += kLanes) {
    const Floats values = load<Floats>(vector + j);
    for (int64_t r = 0; r < kRowsAtOnce; ++r)
      sums[r] += load<Floats>(rows[r] + j) * values;
  }
  for (int64_t r = 0; r < kRowsAtOnce; ++r) {
    float sum = fold(sums[r]);
    for (int64_t rest = j; rest < d; ++rest)
      sum += rows[r][rest] * vector[rest];
    out[r] = sum;
  }
}

}  // namespace
}  // namespace ssra
