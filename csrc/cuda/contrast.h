// What the graded contrastive loss does with the cosines of a tile: sums and weights.
//
// The loss is that of csrc/kernels/loss.h. Products come from cuBLAS, one matrix a level; kernels
// here turn them into cosines as they read them, and into weights for the products of the gradient.
// No sum depends on the order in which blocks run.
#pragma once

#include <cmath>

#include "cuda/block.h"

namespace ssra::cuda {

// What the loss knows of each anchor (a query and its positive) at each level: [levels][count].
struct Anchors {
  int64_t count;
  const float* positives;  // cosine of the positive
  const float* ceilings;   // cosines above are left out
  // The largest cosine in the denominator, at first the positive's, and the sum of all terms but
  // the positive's relative to it, at first 0.
  float* largest;
  float* others;
  // Weight of a term that is as large as the largest, and of the positive.
  float* shares;
  float* pulls;
};

// Products of some anchors (rows) with some vectors (columns) at all levels.
struct ContrastTile {
  float* products;  // [levels][rows][columns]
  int64_t level_stride;
  int64_t row_stride;
  int64_t rows;
  int64_t columns;
  int64_t first_row;
  int64_t first_column;
  int levels;
  // What products are multiplied by to be cosines: [levels][of all vectors].
  const float* row_scales;
  int64_t row_scales_stride;
  const float* column_scales;
  int64_t column_scales_stride;
  const float* temperature;
  // Columns are anchors too, from the first row on: pairs beyond the tile's own square are seen
  // nowhere else and count for both sides. Otherwise column i is the positive of anchor i.
  bool symmetric;
  Anchors anchors;

  SSRA_EVERYWHERE int64_t mirrored() const { return symmetric ? rows : columns; }

  SSRA_DEVICE float* at(int level, int64_t row, int64_t column) const {
    return products + level * level_stride + row * row_stride + column;
  }

  // What turns a product into a cosine.
  SSRA_DEVICE float scale(int level, int64_t row, int64_t column) const {
    return row_scales[level * row_scales_stride + first_row + row] *
           column_scales[level * column_scales_stride + first_column + column];
  }

  SSRA_DEVICE float cosine(int level, int64_t row, int64_t column) const {
    return *at(level, row, column) * scale(level, row, column);
  }

  // A vector with itself, or an anchor with its positive, which has its own place.
  SSRA_DEVICE bool own(int64_t row, int64_t column) const {
    return first_row + row == first_column + column;
  }

  // What a pair weighs for an anchor.
  SSRA_DEVICE float weight(int level, int64_t anchor, float cosine) const {
    const int64_t i = level * anchors.count + anchor;
    if (cosine > anchors.ceilings[i])
      return 0;
    return anchors.shares[i] * expf((cosine - anchors.largest[i]) / *temperature);
  }
};

// A sum of exponentials relative to the largest term.
struct OnlineSum {
  float largest;
  float others;

  SSRA_DEVICE void add(float cosine, float temperature) {
    if (cosine > largest) {
      others *= expf((largest - cosine) / temperature);
      largest = cosine;
    }
    others += expf((cosine - largest) / temperature);  // NaN stays NaN
  }

  SSRA_DEVICE void merge(const OnlineSum& more, float temperature) {
    const float top = more.largest > largest ? more.largest : largest;
    others = others * expf((largest - top) / temperature) +
             more.others * expf((more.largest - top) / temperature);
    largest = top;
  }
};

// Adds a tile to the sums of its rows. One block a row and level.
struct AddRowSums {
  ContrastTile tile;

  Grid grid(int) const { return {tile.rows, tile.levels}; }
  size_t shared_bytes(int threads) const {
    return static_cast<size_t>(threads) * sizeof(OnlineSum);
  }

  template <class Block>
  SSRA_DEVICE void operator()(Block& block) const {
    const int64_t row = block.x();
    const int level = static_cast<int>(block.y());
    const int64_t i = level * tile.anchors.count + tile.first_row + row;
    const float temperature = *tile.temperature;
    const float ceiling = tile.anchors.ceilings[i];
    // All start from the largest term there is; the first also brings the sum so far.
    OnlineSum sum{tile.anchors.largest[i], block.thread() == 0 ? tile.anchors.others[i] : 0};
    for (int64_t column = block.thread(); column < tile.columns; column += block.threads()) {
      const float cosine = tile.cosine(level, row, column);
      if (!(cosine > ceiling) && !tile.own(row, column))
        sum.add(cosine, temperature);
    }

    auto* sums = reinterpret_cast<OnlineSum*>(block.shared());
    sums[block.thread()] = sum;
    for (int half = block.threads() / 2; half > 0; half /= 2) {
      block.barrier();
      if (block.thread() < half)
        sums[block.thread()].merge(sums[block.thread() + half], temperature);
    }
    if (block.thread() == 0) {
      tile.anchors.largest[i] = sums[0].largest;
      tile.anchors.others[i] = sums[0].others;
    }
  }
};

// Adds a symmetric tile to the sums of its mirrored columns. One thread a column and level.
struct AddColumnSums {
  ContrastTile tile;

  Grid grid(int threads) const {
    return {blocks_for(tile.columns - tile.mirrored(), threads), tile.levels};
  }
  size_t shared_bytes(int) const { return 0; }

  template <class Block>
  SSRA_DEVICE void operator()(Block& block) const {
    const int level = static_cast<int>(block.y());
    const int64_t column = tile.mirrored() + block.x() * block.threads() + block.thread();
    if (column >= tile.columns)
      return;
    const int64_t i = level * tile.anchors.count + tile.first_column + column;
    const float temperature = *tile.temperature;
    const float ceiling = tile.anchors.ceilings[i];
    OnlineSum sum{tile.anchors.largest[i], tile.anchors.others[i]};
    for (int64_t row = 0; row < tile.rows; ++row) {
      const float cosine = tile.cosine(level, row, column);
      if (!(cosine > ceiling))
        sum.add(cosine, temperature);
    }
    tile.anchors.largest[i] = sum.largest;
    tile.anchors.others[i] = sum.others;
  }
};

// With all of its terms known, an anchor has its loss, and its pairs have their weights. One thread
// an anchor and level, in double: the better a model, the smaller its losses beside their terms.
struct FinishSums {
  Anchors anchors;
  int levels;
  int64_t first;
  int64_t end;
  const float* grades;  // [count]
  const float* temperature;
  double* losses;  // [levels][count]

  Grid grid(int threads) const { return {blocks_for(end - first, threads), levels}; }
  size_t shared_bytes(int) const { return 0; }

  template <class Block>
  SSRA_DEVICE void operator()(Block& block) const {
    const int64_t anchor = first + block.x() * block.threads() + block.thread();
    if (anchor >= end)
      return;
    const int64_t i = block.y() * anchors.count + anchor;
    const double heat = *temperature;
    const double grade = static_cast<double>(grades[anchor]) / static_cast<double>(anchors.count) /
                         static_cast<double>(levels);
    const double others = anchors.others[i];
    const double ahead =
        (static_cast<double>(anchors.largest[i]) - static_cast<double>(anchors.positives[i])) /
        heat;
    const double sum = others + exp(-ahead);
    losses[i] = grade * (ahead > 0 ? ahead + log(sum) : log1p(others));
    anchors.shares[i] = static_cast<float>(grade / heat / sum);
    anchors.pulls[i] = static_cast<float>(-grade / heat * others / sum);
  }
};

// Turns products into what the gradient's products are weighed with, in place: at each level, the
// weights of this and of all larger dims, which contain it, times what makes products cosines.
// Beside it, sums of weight * cosine, which the lengths of vectors take out of the gradient. One
// block for `kRows` rows and as many columns as it has threads.
struct Weigh {
  static constexpr int kRows = 16;

  ContrastTile tile;
  float* row_dots;     // [levels][blocks along columns][rows]
  float* column_dots;  // [levels][blocks along rows][columns]

  Grid grid(int threads) const {
    return {blocks_for(tile.columns, threads), blocks_for(tile.rows, kRows)};
  }
  size_t shared_bytes(int threads) const {
    return static_cast<size_t>(kRows * (row_pitch(threads) + threads / kRows)) * sizeof(float);
  }

  template <class Block>
  SSRA_DEVICE void operator()(Block& block) const {
    const int64_t column = block.x() * block.threads() + block.thread();
    const int64_t first = block.y() * kRows;
    const int64_t column_blocks = blocks_for(tile.columns, block.threads());
    const int64_t row_blocks = blocks_for(tile.rows, kRows);
    auto* dots = reinterpret_cast<float*>(block.shared());
    float weights[kRows] = {};  // of the levels so far
    for (int level = tile.levels - 1; level >= 0; --level) {
      float column_dot = 0;
      SSRA_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const bool inside = first + r < tile.rows && column < tile.columns;
        const float dot = inside ? weigh(level, first + r, column, weights[r]) : 0;
        dots[r * row_pitch(block.threads()) + block.thread()] = dot;
        column_dot += dot;
      }
      if (column < tile.columns)
        column_dots[(level * row_blocks + block.y()) * tile.columns + column] = column_dot;
      add_rows(block, dots, row_dots + (level * column_blocks + block.x()) * tile.rows + first,
               tile.rows - first);
    }
  }

 private:
  // An odd number of banks, so that a warp which reads down the rows meets all of them.
  SSRA_EVERYWHERE static constexpr int row_pitch(int threads) { return threads + 1; }

  // Adds the pair's weight to those of larger dims and returns weight * cosine.
  SSRA_DEVICE float weigh(int level, int64_t row, int64_t column, float& weights) const {
    float* product = tile.at(level, row, column);
    const float scale = tile.scale(level, row, column);
    const int64_t anchor = tile.first_row + row;
    float cosine = *product * scale;
    float weight = 0;
    if (!tile.own(row, column)) {
      weight = tile.weight(level, anchor, cosine);
      if (column >= tile.mirrored())
        weight += tile.weight(level, tile.first_column + column, cosine);
    } else if (!tile.symmetric) {
      weight = tile.anchors.pulls[level * tile.anchors.count + anchor];
      cosine = tile.anchors.positives[level * tile.anchors.count + anchor];
    }
    weights += weight * scale;
    *product = weights;
    return weight * cosine;
  }

  // Sums each row of `dots`, [kRows][threads]: as many columns as there are rows at first, so that
  // every thread has its part.
  template <class Block>
  SSRA_DEVICE void add_rows(Block& block, float* dots, float* sums, int64_t rows) const {
    const int pitch = row_pitch(block.threads());
    const int parts = block.threads() / kRows;
    float* partial = dots + kRows * pitch;  // [parts][kRows]
    const int row = block.thread() % kRows;
    const int part = block.thread() / kRows;
    block.barrier();
    float sum = 0;
    for (int i = 0; i < kRows; ++i)
      sum += dots[row * pitch + part * kRows + i];
    partial[part * kRows + row] = sum;
    block.barrier();
    if (block.thread() < kRows && block.thread() < rows) {
      float whole = 0;
      for (int p = 0; p < parts; ++p)
        whole += partial[p * kRows + block.thread()];
      sums[block.thread()] = whole;
    }
  }
};

}  // namespace ssra::cuda
