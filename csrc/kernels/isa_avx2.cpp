// AVX2 and FMA.
#include <immintrin.h>

#include "kernels/pairs.h"
#include "kernels/rows.h"
#include "kernels/unrolled.h"

namespace ssra {

namespace {

constexpr int64_t kRegisters = kPanel / 8;  // eight documents' sums to a register
constexpr int64_t kPair = 2;                // queries whose sums fit in registers together

// sum += addend, written out to keep gcc 12 from copying sums to memory and back in every step.
[[gnu::always_inline]] inline void add(__m256i& sum, __m256i addend) {
  asm("vpaddd %1, %0, %0" : "+x"(sum) : "x"(addend));
}

// vpmaddubsw adds two products of an unsigned and a signed byte in sixteen bits: with documents of
// 7 bits (an offset of 64, values to 127) and queries of 8, that is at most 2 * 127 * 127.
void screen(const uint8_t* panel, const float* scales, const float* shifts, const int8_t* queries,
            const int32_t* corrections, int64_t groups, const float* low, const float* high,
            Hits& hits) {
  const __m256i ones = _mm256_set1_epi16(1);
  for (int64_t first = 0; first < kQueryTile; first += kPair) {
    __m256i sums[kPair][kRegisters];
    each<kPair>([&](auto q) __attribute__((always_inline)) {
      each<kRegisters>([&](auto r) __attribute__((always_inline)) {
        sums[q][r] = _mm256_set1_epi32(corrections[first + q]);
      });
    });

    const auto* documents = reinterpret_cast<const __m256i*>(panel);
    const auto* columns = reinterpret_cast<const int32_t*>(queries) + first;
    for (int64_t g = 0; g < groups; ++g) {
      each<kPair>([&](auto q) __attribute__((always_inline)) {
        const __m256i column = _mm256_set1_epi32(columns[q]);
        each<kRegisters>([&](auto r) __attribute__((always_inline)) {
          const __m256i pairs = _mm256_maddubs_epi16(_mm256_load_si256(documents + r), column);
          add(sums[q][r], _mm256_madd_epi16(pairs, ones));
        });
      });
      documents += kRegisters;
      columns += kQueryTile;
    }

    each<kPair>([&](auto q) __attribute__((always_inline)) {
      const __m256 floor = _mm256_set1_ps(low[first + q]);
      const __m256 ceiling = _mm256_set1_ps(high[first + q]);
      uint64_t mask = 0;
      each<kRegisters>([&](auto r) __attribute__((always_inline)) {
        const __m256 values =
            _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums[q][r]), _mm256_loadu_ps(scales + 8 * r),
                            _mm256_loadu_ps(shifts + 8 * r));
        _mm256_store_ps(hits.values[first + q] + 8 * r, values);
        const __m256 within = _mm256_and_ps(_mm256_cmp_ps(values, floor, _CMP_GE_OQ),
                                            _mm256_cmp_ps(values, ceiling, _CMP_LE_OQ));
        mask |= static_cast<uint64_t>(_mm256_movemask_ps(within)) << (8 * r);
      });
      hits.masks[first + q] = mask;
    });
  }
}

// sum += a * b, written out for the same reason.
[[gnu::always_inline]] inline void multiply_add(__m256& sum, __m256 a, __m256 b) {
  asm("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
}

constexpr int64_t kProductRows = 4;  // of 8: with three registers of b, twelve sums and one of a

template <int64_t registers>
void multiply_part(const ProductTile<float>& tile, const float* a, const float* b, float* out) {
  __m256 sums[kProductRows][registers];
  each<kProductRows>([&](auto i) __attribute__((always_inline)) {
    each<registers>([&](auto r)
                        __attribute__((always_inline)) { sums[i][r] = _mm256_setzero_ps(); });
  });
  for (int64_t k = 0; k < tile.steps; ++k) {
    __m256 columns[registers];
    each<registers>(
        [&](auto r) __attribute__((always_inline)) { columns[r] = _mm256_loadu_ps(b + 8 * r); });
    each<kProductRows>([&](auto i) __attribute__((always_inline)) {
      const __m256 value = _mm256_broadcast_ss(a + i * tile.a_row);
      each<registers>([&](auto r) __attribute__((always_inline)) {
        multiply_add(sums[i][r], value, columns[r]);
      });
    });
    a += tile.a_step;
    b += tile.b_step;
  }
  each<kProductRows>([&](auto i) __attribute__((always_inline)) {
    each<registers>([&](auto r) __attribute__((always_inline)) {
      _mm256_storeu_ps(out + i * kPanel + 8 * r, sums[i][r]);
    });
  });
}

void multiply(const ProductTile<float>& tile) {
  // Columns are there up to a multiple of 16, so three registers of 8 fit into 48 only.
  const bool whole = tile.width > 32;
  const auto part = whole ? multiply_part<3> : multiply_part<2>;
  alignas(32) float sums[kQueryTile * kPanel];
  for (int64_t i = 0; i < tile.rows; i += kProductRows)
    for (int64_t j = 0; j < tile.width; j += whole ? 24 : 16)
      part(tile, tile.a + i * tile.a_row, tile.b + j, sums + i * kPanel + j);
  finish(tile, sums);
}

}  // namespace

const Isa kIsaAvx2 = {
    .name = "avx2",
    .document_levels = 63,
    .summarize = summarize,
    .quantize = quantize,
    .weigh = weigh,
    .inner_products = inner_products,
    .screen = screen,
    .multiply = multiply,
    .multiply_pairs = multiply_pairs,
    .scale_row = scale_row,
    .sum_row = sum_row,
    .sum_columns = sum_columns,
    .weigh_row = weigh_row,
    .round_rows = round_rows,
};

}  // namespace ssra
