#include "kernels/contrast.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "support/parallel.h"

namespace ssra {

namespace {

constexpr int64_t kColumnsPerTask = 768;  // 16 panels
constexpr int64_t kDepth = 1024;          // steps whose strip stays in cache while rows pass

template <class Factor>
void multiply_tile(const Isa& isa, const ProductTile<Factor>& tile) {
  if constexpr (kIsRounded<Factor>)
    isa.multiply_pairs(tile);
  else
    isa.multiply(tile);
}

template <class T>
void grow(std::vector<T>& values, int64_t size) {
  if (values.size() < static_cast<size_t>(size))
    values.resize(static_cast<size_t>(size));
}

int64_t tasks_of(int64_t count, int64_t per_task) {
  return (count + per_task - 1) / per_task;
}

}  // namespace

Anchors::Anchors(int64_t count, int64_t levels)
    : count_(count), levels_(levels), padded_(tasks_of(count, kPanel) * kPanel) {
  const auto size = static_cast<size_t>(levels * padded_);
  positives_.resize(size);
  ceilings_.resize(size, -std::numeric_limits<float>::infinity());
  largest_.resize(size, kExcluded);
  others_.resize(size);
  shares_.resize(size);
  pulls_.resize(size);
}

template <class Factor>
ContrastBlock<Factor>::ContrastBlock(const Contrast<Factor>& contrast, int64_t first_row)
    : contrast_(contrast),
      block_(contrast.rows.vectors(), contrast.dims, contrast.strips, first_row,
             std::min(kRows, contrast.anchors.count() - first_row)),
      first_column_(contrast.pairs == Pairs::kSymmetric ? first_row : 0),
      width_(tasks_of(contrast.column_count, kPanel) * kPanel - first_column_),
      stride_(width_ + 16),  // an odd number of cache lines: columns of tiles spread over all sets
      mirrored_(contrast.pairs == Pairs::kSymmetric ? std::min(kRows, width_) : width_) {
  // Tiles are whole; what they compute beyond the last row is not looked at.
  const int64_t rows = block_.tiles() * kQueryTile;
  const int64_t size =
      (contrast.anchors.levels() * block_.count() + rows - block_.count()) * stride_;
  grow(contrast.workspace.cosines, size);
  multiply();
  scale();
}

// Products at all levels in one go: each level goes on from the sums of the one before.
template <class Factor>
void ContrastBlock<Factor>::multiply() {
  const int64_t first_panel = first_column_ / kPanel;
  parallel_for(width_ / kPanel, contrast_.threads, [&](int64_t p) {
    for (int64_t t = 0; t < block_.tiles(); ++t) {
      const float* before = nullptr;
      for (int64_t level = 0; level < contrast_.anchors.levels(); ++level) {
        float* out = cosines(level) + t * kQueryTile * stride_ + p * kPanel;
        const auto add = [&]<class F>(const PackedColumns<F>& rows,
                                      const PackedColumns<F>& columns) {
          multiply_tile(
              contrast_.isa,
              ProductTile<F>{.a = rows.at(t, level),
                             .a_row = 1,
                             .a_step = kQueryTile,
                             .b = columns.at(first_panel + p, level),
                             .b_step = kPanel,
                             .steps = rows.steps(level),
                             .init = before,
                             .out = out,
                             .out_row = stride_,
                             .rows = std::min(kQueryTile, block_.count() - t * kQueryTile),
                             .width = kPanel});
        };
        if (block_.exact().holds(level))
          add(block_.exact(), contrast_.columns.exact());
        else
          add(block_.columns(), contrast_.columns.columns());
        before = out;
      }
    }
  });
}

// Products to cosines. The pair of a vector with itself, or with its positive, is taken out: the
// positive has its own place.
template <class Factor>
void ContrastBlock<Factor>::scale() {
  const int64_t columns = contrast_.column_count - first_column_;
  parallel_for(block_.count(), contrast_.threads, [&](int64_t i) {
    for (int64_t level = 0; level < contrast_.anchors.levels(); ++level) {
      float* row = cosines(level) + i * stride_;
      contrast_.isa.scale_row(row, contrast_.columns.scales(level) + first_column_,
                              contrast_.rows.scales(level)[block_.first() + i], width_);
      std::fill(row + columns, row + width_, kExcluded);
      row[own_column(i)] = kExcluded;
    }
  });
}

template <class Factor>
void ContrastBlock<Factor>::add_to_sums() {
  Anchors& anchors = contrast_.anchors;
  parallel_for(block_.count(), contrast_.threads, [&](int64_t i) {
    const int64_t anchor = block_.first() + i;
    for (int64_t level = 0; level < anchors.levels(); ++level)
      contrast_.isa.sum_row(cosines(level) + i * stride_, width_, anchors.ceilings(level)[anchor],
                            contrast_.inverse_temperature, anchors.largest(level)[anchor],
                            anchors.others(level)[anchor]);
  });
  parallel_for(tasks_of(width_ - mirrored_, kColumnsPerTask), contrast_.threads, [&](int64_t task) {
    const int64_t begin = mirrored_ + task * kColumnsPerTask;
    const int64_t count = std::min(kColumnsPerTask, width_ - begin);
    const int64_t anchor = first_column_ + begin;
    for (int64_t level = 0; level < anchors.levels(); ++level)
      contrast_.isa.sum_columns(cosines(level) + begin, stride_, block_.count(), count,
                                anchors.ceilings(level) + anchor, contrast_.inverse_temperature,
                                anchors.largest(level) + anchor, anchors.others(level) + anchor);
  });
}

template <class Factor>
double ContrastBlock<Factor>::add_gradients(const Matrix<float>& row_gradient,
                                            const Matrix<float>& column_gradient) {
  double total = weigh();
  if (contrast_.pairs == Pairs::kCandidates)
    total += pull_positives(row_gradient, column_gradient);
  if constexpr (kIsRounded<Factor>)
    round_weights();
  add_row_gradient(row_gradient);
  add_column_gradient(column_gradient);
  return total;
}

// Columns are shared out among threads, so that each sum by column has one owner; sums by row are
// gathered afterwards, in order.
template <class Factor>
double ContrastBlock<Factor>::weigh() {
  Anchors& anchors = contrast_.anchors;
  const int64_t levels = anchors.levels();
  // The block's own square, then what lies beyond it.
  std::vector<int64_t> edges = {0};
  for (const int64_t end : {mirrored_, width_})
    while (edges.back() < end)
      edges.push_back(std::min(end, edges.back() + kColumnsPerTask));
  const auto ranges = static_cast<int64_t>(edges.size()) - 1;
  std::vector<float> row_dots(static_cast<size_t>(ranges * block_.count() * levels));

  parallel_for(ranges, contrast_.threads, [&](int64_t range) {
    const int64_t begin = edges[static_cast<size_t>(range)];
    const int64_t count = edges[static_cast<size_t>(range) + 1] - begin;
    const int64_t column = first_column_ + begin;
    const bool both_ways = begin >= mirrored_;
    for (int64_t i = 0; i < block_.count(); ++i) {
      const int64_t anchor = block_.first() + i;
      PairRow row;
      row.levels = levels;
      row.inverse_temperature = contrast_.inverse_temperature;
      for (int64_t level = 0; level < levels; ++level)
        row.at[level] = {
            .cosines = cosines(level) + i * stride_ + begin,
            .ceiling = anchors.ceilings(level)[anchor],
            .largest = anchors.largest(level)[anchor],
            .share = anchors.shares(level)[anchor],
            .row_scale = contrast_.rows.scales(level)[anchor],
            .row_dot = 0,
            .column_ceilings = both_ways ? anchors.ceilings(level) + column : nullptr,
            .column_largest = both_ways ? anchors.largest(level) + column : nullptr,
            .column_shares = both_ways ? anchors.shares(level) + column : nullptr,
            .column_scales = contrast_.columns.scales(level) + column,
            .column_dots = contrast_.columns.dots(level) + column,
        };
      contrast_.isa.weigh_row(row, count);
      for (int64_t level = 0; level < levels; ++level)
        row_dots[static_cast<size_t>((range * block_.count() + i) * levels + level)] =
            row.at[level].row_dot;
    }
  });

  double total = 0;
  for (int64_t range = 0; range < ranges; ++range)
    for (int64_t i = 0; i < block_.count(); ++i)
      for (int64_t level = 0; level < levels; ++level) {
        const float dot =
            row_dots[static_cast<size_t>((range * block_.count() + i) * levels + level)];
        contrast_.rows.dots(level)[block_.first() + i] += dot;
        total += static_cast<double>(dot);
      }
  return total;
}

// The positive's term in the denominator, less the numerator: by far the largest weight of a row,
// so its products are never rounded.
template <class Factor>
double ContrastBlock<Factor>::pull_positives(const Matrix<float>& row_gradient,
                                             const Matrix<float>& column_gradient) {
  Anchors& anchors = contrast_.anchors;
  std::vector<double> totals(static_cast<size_t>(block_.count()));
  parallel_for(block_.count(), contrast_.threads, [&](int64_t i) {
    const int64_t anchor = block_.first() + i;
    const float* row = contrast_.rows.vectors().row(anchor);
    const float* column = contrast_.columns.vectors().row(anchor);
    float* for_row = row_gradient.row(anchor);
    float* for_column = column_gradient.row(anchor);
    float weight = 0;
    for (int64_t level = anchors.levels() - 1; level >= 0; --level) {
      const float cosine = anchors.positives(level)[anchor];
      const float pull = anchors.pulls(level)[anchor];
      weight +=
          pull * contrast_.rows.scales(level)[anchor] * contrast_.columns.scales(level)[anchor];
      contrast_.rows.dots(level)[anchor] += pull * cosine;
      contrast_.columns.dots(level)[anchor] += pull * cosine;
      totals[static_cast<size_t>(i)] += static_cast<double>(pull * cosine);
      const int64_t end = contrast_.dims[static_cast<size_t>(level)];
      for (int64_t j = level == 0 ? 0 : contrast_.dims[static_cast<size_t>(level - 1)]; j < end;
           ++j) {
        for_row[j] += weight * column[j];
        for_column[j] += weight * row[j];
      }
    }
  });
  return std::accumulate(totals.begin(), totals.end(), 0.0);
}

template <class Factor>
Factor* ContrastBlock<Factor>::weights_by_row(int64_t level) {
  if constexpr (kIsRounded<Factor>)
    return contrast_.workspace.by_row.data() + level * block_.count() * steps_of<Factor>(stride_);
  else
    return cosines(level);
}

template <class Factor>
Factor* ContrastBlock<Factor>::weights_by_column(int64_t level) {
  if constexpr (kIsRounded<Factor>)
    return contrast_.workspace.by_column.data() +
           level * steps_of<Factor>(block_.count()) * stride_;
  else
    return cosines(level);
}

template <class Factor>
void ContrastBlock<Factor>::round_weights()
  requires kIsRounded<Factor>
{
  const int64_t levels = contrast_.anchors.levels();
  const int64_t row_steps = steps_of<Factor>(stride_);
  const int64_t pairs = steps_of<Factor>(block_.count());
  grow(contrast_.workspace.by_row, (levels * block_.count() + kQueryTile) * row_steps);
  grow(contrast_.workspace.by_column, levels * pairs * stride_);
  parallel_for(pairs, contrast_.threads, [&](int64_t pair) {
    for (int64_t level = 0; level < levels; ++level) {
      const float* first = cosines(level) + 2 * pair * stride_;
      const float* second = 2 * pair + 1 < block_.count() ? first + stride_ : nullptr;
      Factor* by_row = weights_by_row(level) + 2 * pair * row_steps;
      contrast_.isa.round_rows(first, second, width_, by_row, by_row + row_steps,
                               weights_by_column(level) + pair * stride_);
    }
  });
}

template <class Factor>
void ContrastBlock<Factor>::add_row_gradient(const Matrix<float>& gradient) {
  const int64_t row_steps = steps_of<Factor>(stride_);
  parallel_for(static_cast<int64_t>(contrast_.strips.size()), contrast_.threads, [&](int64_t s) {
    const Strip& strip = contrast_.strips[static_cast<size_t>(s)];
    const Factor* weights = weights_by_row(strip.level);
    const Factor* vectors = contrast_.columns.strip(static_cast<size_t>(s)) +
                            steps_of<Factor>(first_column_) * strip.padded;
    const int64_t steps = steps_of<Factor>(width_);
    for (int64_t begin = 0; begin < steps; begin += kDepth)
      for (int64_t t = 0; t < block_.tiles(); ++t) {
        float* out = gradient.row(block_.first() + t * kQueryTile) + strip.begin;
        multiply_tile(
            contrast_.isa,
            ProductTile<Factor>{.a = weights + t * kQueryTile * row_steps + begin,
                                .a_row = row_steps,
                                .a_step = 1,
                                .b = vectors + begin * strip.padded,
                                .b_step = strip.padded,
                                .steps = std::min(kDepth, steps - begin),
                                .init = out,
                                .out = out,
                                .out_row = gradient.stride,
                                .rows = std::min(kQueryTile, block_.count() - t * kQueryTile),
                                .width = strip.width});
      }
  });
}

template <class Factor>
void ContrastBlock<Factor>::add_column_gradient(const Matrix<float>& gradient) {
  const int64_t columns = contrast_.column_count - first_column_;
  parallel_for(tasks_of(columns, kColumnsPerTask), contrast_.threads, [&](int64_t task) {
    const int64_t end = std::min(columns, (task + 1) * kColumnsPerTask);
    // Strips within columns: the gradient, too large for any cache, is walked row by row.
    for (int64_t column = task * kColumnsPerTask; column < end; column += kQueryTile) {
      for (size_t s = 0; s < contrast_.strips.size(); ++s) {
        const Strip& strip = contrast_.strips[s];
        const Factor* weights = weights_by_column(strip.level);
        float* out = gradient.row(first_column_ + column) + strip.begin;
        multiply_tile(contrast_.isa, ProductTile<Factor>{.a = weights + column,
                                                         .a_row = 1,
                                                         .a_step = stride_,
                                                         .b = block_.strip(s),
                                                         .b_step = strip.padded,
                                                         .steps = steps_of<Factor>(block_.count()),
                                                         .init = out,
                                                         .out = out,
                                                         .out_row = gradient.stride,
                                                         .rows = std::min(kQueryTile, end - column),
                                                         .width = strip.width});
      }
    }
  });
}

template class ContrastBlock<float>;
template class ContrastBlock<Bfloat16x2>;

}  // namespace ssra
