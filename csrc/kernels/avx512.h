// What the sets with AVX-512 share, in code that each one's file compiles for itself; see rows.h.
#pragma once

#include <immintrin.h>

#include "kernels/pairs.h"
#include "kernels/rows.h"
#include "kernels/unrolled.h"

namespace ssra {
namespace {

constexpr int64_t kRegisters = kPanel / 16;  // sixteen documents' sums to a register

// sum += documents * column, bytes four by four. Written out because gcc 12, given the intrinsic,
// copies half of the sums to memory and back in every step, at half the speed.
[[gnu::always_inline]] inline void multiply_add(__m512i& sum, __m512i documents, __m512i column) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(documents), "v"(column));
}

// 24 sums, 3 registers of documents and one of query columns leave four to spare of 32.
void screen(const uint8_t* panel, const float* scales, const float* shifts, const int8_t* queries,
            const int32_t* corrections, int64_t groups, const float* low, const float* high,
            Hits& hits) {
  __m512i sums[kQueryTile][kRegisters];
  each<kQueryTile>([&](auto q) __attribute__((always_inline)) {
    const __m512i correction = _mm512_set1_epi32(corrections[q]);
    sums[q][0] = correction;
    sums[q][1] = correction;
    sums[q][2] = correction;
  });

  const auto* columns = reinterpret_cast<const int32_t*>(queries);
  for (int64_t g = 0; g < groups; ++g) {
    const __m512i first = _mm512_load_si512(panel);
    const __m512i second = _mm512_load_si512(panel + 64);
    const __m512i third = _mm512_load_si512(panel + 128);
    each<kQueryTile>([&](auto q) __attribute__((always_inline)) {
      const __m512i column = _mm512_set1_epi32(columns[q]);
      multiply_add(sums[q][0], first, column);
      multiply_add(sums[q][1], second, column);
      multiply_add(sums[q][2], third, column);
    });
    panel += kPanel * kGroup;
    columns += kQueryTile;
  }

  const __m512 scale[kRegisters] = {_mm512_loadu_ps(scales), _mm512_loadu_ps(scales + 16),
                                    _mm512_loadu_ps(scales + 32)};
  const __m512 shift[kRegisters] = {_mm512_loadu_ps(shifts), _mm512_loadu_ps(shifts + 16),
                                    _mm512_loadu_ps(shifts + 32)};
  each<kQueryTile>([&](auto q) __attribute__((always_inline)) {
    const __m512 floor = _mm512_set1_ps(low[q]);
    const __m512 ceiling = _mm512_set1_ps(high[q]);
    const auto value = [&](int64_t r) __attribute__((always_inline)) {
      return _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[q][r]), scale[r], shift[r]);
    };
    const auto within = [&](__m512 values) __attribute__((always_inline)) {
      const __mmask16 above = _mm512_cmp_ps_mask(values, floor, _CMP_GE_OQ);
      return static_cast<uint64_t>(_mm512_mask_cmp_ps_mask(above, values, ceiling, _CMP_LE_OQ));
    };
    const __m512 values[kRegisters] = {value(0), value(1), value(2)};
    const uint64_t mask = within(values[0]) | within(values[1]) << 16 | within(values[2]) << 32;
    hits.masks[q] = mask;
    if (mask != 0) {
      _mm512_store_ps(hits.values[q], values[0]);
      _mm512_store_ps(hits.values[q] + 16, values[1]);
      _mm512_store_ps(hits.values[q] + 32, values[2]);
    }
  });
}

// How factors of products get into registers and are multiplied: sixteen sums to a register.
struct FloatProducts {
  using Factor = float;

  [[gnu::always_inline]] static __m512 load(const float* factors) {
    return _mm512_loadu_ps(factors);
  }
  [[gnu::always_inline]] static __m512 spread(const float* factor) {
    return _mm512_set1_ps(*factor);
  }
  // sum += a * b, written out for the same reason.
  [[gnu::always_inline]] static void multiply_add(__m512& sum, __m512 a, __m512 b) {
    asm("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  }
};

template <class Products, int64_t registers>
void multiply_tile(const ProductTile<typename Products::Factor>& tile, float* out, int64_t out_row,
                   const float* init) {
  __m512 sums[kQueryTile][registers];
  each<kQueryTile>([&](auto i) __attribute__((always_inline)) {
    each<registers>([&](auto r) __attribute__((always_inline)) {
      sums[i][r] =
          init == nullptr ? _mm512_setzero_ps() : _mm512_loadu_ps(init + i * out_row + 16 * r);
    });
  });
  const auto* a = tile.a;
  const auto* b = tile.b;
  for (int64_t k = 0; k < tile.steps; ++k) {
    decltype(Products::load(b)) columns[registers];
    each<registers>(
        [&](auto r) __attribute__((always_inline)) { columns[r] = Products::load(b + 16 * r); });
    each<kQueryTile>([&](auto i) __attribute__((always_inline)) {
      const auto value = Products::spread(a + i * tile.a_row);
      each<registers>([&](auto r) __attribute__((always_inline)) {
        Products::multiply_add(sums[i][r], value, columns[r]);
      });
    });
    a += tile.a_step;
    b += tile.b_step;
  }
  each<kQueryTile>([&](auto i) __attribute__((always_inline)) {
    each<registers>([&](auto r) __attribute__((always_inline)) {
      _mm512_storeu_ps(out + i * out_row + 16 * r, sums[i][r]);
    });
  });
}

template <class Products, int64_t registers>
void multiply_width(const ProductTile<typename Products::Factor>& tile) {
  if (tile.rows == kQueryTile && tile.width == 16 * registers) {
    multiply_tile<Products, registers>(tile, tile.out, tile.out_row, tile.init);
  } else {
    alignas(64) float sums[kQueryTile * kPanel];
    multiply_tile<Products, registers>(tile, sums, kPanel, nullptr);
    finish(tile, sums);
  }
}

template <class Products>
void multiply(const ProductTile<typename Products::Factor>& tile) {
  if (tile.width > 32)
    multiply_width<Products, 3>(tile);
  else if (tile.width > 16)
    multiply_width<Products, 2>(tile);
  else
    multiply_width<Products, 1>(tile);
}

}  // namespace
}  // namespace ssra
