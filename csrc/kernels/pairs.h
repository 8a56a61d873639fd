// Loops of the contrastive loss over rows of cosines, in portable code that each instruction set's
// file compiles for itself; see rows.h.
#pragma once

#include "kernels/rows.h"

namespace ssra {
namespace {

// Writes the part of a tile that is wanted: sums[8][48] plus what the tile starts from.
template <class Factor>
inline void finish(const ProductTile<Factor>& tile, const float* sums) {
  for (int64_t i = 0; i < tile.rows; ++i)
    for (int64_t j = 0; j < tile.width; ++j) {
      const int64_t at = i * tile.out_row + j;
      tile.out[at] = (tile.init == nullptr ? 0 : tile.init[at]) + sums[i * kPanel + j];
    }
}

// The terms of eight pairs as floats: bfloat16 is the upper half of a float.
struct Terms {
  HalfFloats first;
  HalfFloats second;
};

inline Terms widen(HalfSigned pairs) {
  return {reinterpret_cast<HalfFloats>(pairs << 16), reinterpret_cast<HalfFloats>(pairs & -65536)};
}

template <int64_t registers>
inline void multiply_pairs_of_row(const ProductTile<Bfloat16x2>& tile, int64_t row, float* out) {
  HalfFloats sums[registers] = {};
  const Bfloat16x2* a = tile.a + row * tile.a_row;
  const Bfloat16x2* b = tile.b;
  for (int64_t k = 0; k < tile.steps; ++k) {
    const Terms value = widen(HalfSigned{} + load<int32_t>(a));
    for (int64_t r = 0; r < registers; ++r) {
      const Terms columns = widen(load<HalfSigned>(b + 8 * r));
      sums[r] += value.first * columns.first;
      sums[r] += value.second * columns.second;
    }
    a += tile.a_step;
    b += tile.b_step;
  }
  __builtin_memcpy(out, sums, sizeof sums);
}

// For sets without an instruction for it: as exact, but no faster than floats.
[[maybe_unused]] inline void multiply_pairs(const ProductTile<Bfloat16x2>& tile) {
  float sums[kQueryTile * kPanel];
  for (int64_t i = 0; i < tile.rows; ++i) {
    float* out = sums + i * kPanel;
    if (tile.width > 2 * kLanes)
      multiply_pairs_of_row<6>(tile, i, out);
    else if (tile.width > kLanes)
      multiply_pairs_of_row<4>(tile, i, out);
    else
      multiply_pairs_of_row<2>(tile, i, out);
  }
  finish(tile, sums);
}

// Finite floats rounded to bfloat16, ties to even, in the upper half of each lane.
inline Signed round_to_bfloat16(Floats values) {
  const auto bits = reinterpret_cast<Signed>(values);
  return (bits + 0x7FFF + ((bits >> 16) & 1)) & -65536;
}

inline void round_rows(const float* first, const float* second, int64_t n, Bfloat16x2* of_first,
                       Bfloat16x2* of_second, Bfloat16x2* of_columns) {
  const auto store_halves = [](Signed rounded, Bfloat16x2* out) {
    const Halves halves = __builtin_convertvector(rounded >> 16, Halves);
    __builtin_memcpy(out, &halves, sizeof halves);
  };
  for (int64_t j = 0; j < n; j += kLanes) {
    const Signed above = round_to_bfloat16(load<Floats>(first + j));
    store_halves(above, of_first + j / 2);
    Signed pairs = above >> 16 & 0xFFFF;
    if (second != nullptr) {
      const Signed below = round_to_bfloat16(load<Floats>(second + j));
      store_halves(below, of_second + j / 2);
      pairs |= below;
    }
    __builtin_memcpy(of_columns + j, &pairs, sizeof pairs);
  }
}

// e to the power of x; of 88 where x is larger; zero below -87, where floats become denormal.
inline Floats exponential(Floats x) {
  const Floats least = Floats{} - 87.0F;
  const Floats most = Floats{} + 88.0F;
  Floats bounded = x > least ? x : least;
  bounded = bounded < most ? bounded : most;
  // x = whole * ln 2 + rest, |rest| <= ln 2 / 2; adding and subtracting 1.5 * 2^23 rounds.
  constexpr float kRounder = 12582912.0F;
  const Floats shifted = bounded * 1.442695041F + kRounder;
  const Floats whole = shifted - kRounder;
  const Floats rest = (bounded - whole * 0.693359375F) + whole * 2.12194440e-4F;
  Floats series = Floats{} + 1.0F / 5040;
  for (const float inverse_factorial :
       {1.0F / 720, 1.0F / 120, 1.0F / 24, 1.0F / 6, 0.5F, 1.0F, 1.0F})
    series = series * rest + inverse_factorial;
  const Signed exponent = __builtin_convertvector(whole, Signed) << 23;
  const Floats power = reinterpret_cast<Floats>(reinterpret_cast<Signed>(series) + exponent);
  return x > least ? power : Floats{};
}

inline float largest_of(Floats lanes) {
  float largest = lanes[0];
  for (int64_t lane = 1; lane < kLanes; ++lane)
    largest = lanes[lane] > largest ? lanes[lane] : largest;
  return largest;
}

inline void scale_row(float* products, const float* column_scales, float row_scale, int64_t n) {
  for (int64_t j = 0; j < n; j += kLanes) {
    const Floats cosines =
        load<Floats>(products + j) * (load<Floats>(column_scales + j) * row_scale);
    __builtin_memcpy(products + j, &cosines, sizeof cosines);
  }
}

inline void sum_row(const float* cosines, int64_t n, float ceiling, float inverse_temperature,
                    float& largest, float& sum) {
  const Floats excluded = Floats{} + kExcluded;
  Floats best = Floats{} + largest;
  for (int64_t j = 0; j < n; j += kLanes) {
    const Floats s = load<Floats>(cosines + j);
    const Floats counted = s <= ceiling ? s : excluded;
    best = counted > best ? counted : best;
  }
  const float now = largest_of(best);
  Floats sums = {};
  for (int64_t j = 0; j < n; j += kLanes) {
    const Floats s = load<Floats>(cosines + j);
    const Floats counted = s <= ceiling ? s : excluded;
    sums += exponential((counted - now) * inverse_temperature);
  }
  const Floats before = Floats{} + (largest - now) * inverse_temperature;
  sum = sum * exponential(before)[0] + fold(sums);
  largest = now;
}

inline void sum_columns(const float* cosines, int64_t stride, int64_t rows, int64_t n,
                        const float* ceilings, float inverse_temperature, float* largest,
                        float* sums) {
  const Floats excluded = Floats{} + kExcluded;
  for (int64_t j = 0; j < n; j += kLanes) {
    const Floats ceiling = load<Floats>(ceilings + j);
    const Floats before = load<Floats>(largest + j);
    Floats best = before;
    for (int64_t i = 0; i < rows; ++i) {
      const Floats s = load<Floats>(cosines + i * stride + j);
      const Floats counted = s <= ceiling ? s : excluded;
      best = counted > best ? counted : best;
    }
    Floats sum = load<Floats>(sums + j) * exponential((before - best) * inverse_temperature);
    for (int64_t i = 0; i < rows; ++i) {
      const Floats s = load<Floats>(cosines + i * stride + j);
      const Floats counted = s <= ceiling ? s : excluded;
      sum += exponential((counted - best) * inverse_temperature);
    }
    __builtin_memcpy(largest + j, &best, sizeof best);
    __builtin_memcpy(sums + j, &sum, sizeof sum);
  }
}

// What a pair weighs in the loss of one anchor, per unit of cosine.
inline Floats weight(Floats s, Floats ceiling, Floats largest, Floats share, float inverse) {
  const Floats weight = exponential((s - largest) * inverse) * share;
  return s <= ceiling ? weight : Floats{};
}

inline void weigh_row(PairRow& row, int64_t n) {
  Floats row_dots[kMostLevels] = {};
  for (int64_t j = 0; j < n; j += kLanes) {
    Floats total = {};
    for (int64_t m = row.levels - 1; m >= 0; --m) {
      PairLevel& at = row.at[m];
      const Floats s = load<Floats>(at.cosines + j);
      Floats w = weight(s, Floats{} + at.ceiling, Floats{} + at.largest, Floats{} + at.share,
                        row.inverse_temperature);
      if (at.column_shares != nullptr)
        w += weight(s, load<Floats>(at.column_ceilings + j), load<Floats>(at.column_largest + j),
                    load<Floats>(at.column_shares + j), row.inverse_temperature);
      const Floats dots = w * s;
      row_dots[m] += dots;
      const Floats column_dots = load<Floats>(at.column_dots + j) + dots;
      __builtin_memcpy(at.column_dots + j, &column_dots, sizeof column_dots);
      total += w * (load<Floats>(at.column_scales + j) * at.row_scale);
      __builtin_memcpy(at.cosines + j, &total, sizeof total);
    }
  }
  for (int64_t m = 0; m < row.levels; ++m)
    row.at[m].row_dot += fold(row_dots[m]);
}

}  // namespace
}  // namespace ssra
