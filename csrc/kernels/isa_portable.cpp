// Plain C++, for any processor.
#include "kernels/pairs.h"
#include "kernels/rows.h"

namespace ssra {

namespace {

void screen(const uint8_t* panel, const float* scales, const float* shifts, const int8_t* queries,
            const int32_t* corrections, int64_t groups, const float* low, const float* high,
            Hits& hits) {
  for (int64_t q = 0; q < kQueryTile; ++q) {
    int32_t sums[kPanel] = {};
    for (int64_t g = 0; g < groups; ++g) {
      const int8_t* query = queries + (g * kQueryTile + q) * kGroup;
      const uint8_t* documents = panel + g * kPanel * kGroup;
      for (int64_t i = 0; i < kPanel; ++i)
        for (int64_t j = 0; j < kGroup; ++j)
          sums[i] += documents[i * kGroup + j] * query[j];
    }
    hits.masks[q] = 0;
    for (int64_t i = 0; i < kPanel; ++i) {
      const float value = static_cast<float>(sums[i] + corrections[q]) * scales[i] + shifts[i];
      hits.values[q][i] = value;
      hits.masks[q] |= static_cast<uint64_t>(value >= low[q] && value <= high[q]) << i;
    }
  }
}

void multiply(const ProductTile<float>& tile) {
  for (int64_t i = 0; i < tile.rows; ++i) {
    float sums[kPanel] = {};
    for (int64_t k = 0; k < tile.steps; ++k) {
      const float value = tile.a[i * tile.a_row + k * tile.a_step];
      for (int64_t j = 0; j < tile.width; ++j)
        sums[j] += value * tile.b[k * tile.b_step + j];
    }
    for (int64_t j = 0; j < tile.width; ++j) {
      const int64_t at = i * tile.out_row + j;
      tile.out[at] = (tile.init == nullptr ? 0 : tile.init[at]) + sums[j];
    }
  }
}

}  // namespace

const Isa kIsaPortable = {
    .name = "portable",
    .document_levels = 127,
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
