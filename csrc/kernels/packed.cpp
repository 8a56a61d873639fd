#include "kernels/packed.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "support/parallel.h"

namespace ssra {

namespace {

constexpr int64_t kFewColumns = 256;  // see exact_levels()
constexpr double kShortest = 1e-12;
constexpr auto kLargestScale = static_cast<float>(1 / kShortest);

int64_t round_up(int64_t count, int64_t multiple) {
  return (count + multiple - 1) / multiple * multiple;
}

// Where each strip of `steps` steps begins, and where the last one ends.
std::vector<int64_t> offsets_of(std::span<const Strip> strips, int64_t steps) {
  std::vector<int64_t> offsets = {0};
  for (const Strip& strip : strips)
    offsets.push_back(offsets.back() + strip.padded * steps);
  return offsets;
}

// Term `at` of a sum, in the factor for its step.
void set_term(float& factor, int64_t, float value) {
  factor = value;
}

void set_term(Bfloat16x2& factor, int64_t at, float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  factor.terms[at % 2] = static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

// How many of the first levels have their products made of floats, whatever the factors of others:
// the fewer columns a cosine has, the less its rounding errors cancel.
template <class Factor>
int64_t exact_levels(std::span<const int64_t> dims) {
  if constexpr (kTerms<Factor> == 1)
    return 0;
  else
    return std::upper_bound(dims.begin(), dims.end(), kFewColumns) - dims.begin();
}

// Row i of those that a product over rows is summed over.
template <class Factor>
void pack_row(const float* row, int64_t i, std::span<const Strip> strips,
              std::span<const int64_t> offsets, Factor* out) {
  for (size_t s = 0; s < strips.size(); ++s) {
    Factor* factors = out + offsets[s] + i / kTerms<Factor> * strips[s].padded;
    for (int64_t j = 0; j < strips[s].width; ++j)
      set_term(factors[j], i, row[strips[s].begin + j]);
  }
}

}  // namespace

std::vector<Strip> strips_of(std::span<const int64_t> dims) {
  std::vector<Strip> strips;
  int64_t begin = 0;
  for (size_t level = 0; level < dims.size(); ++level)
    while (begin < dims[level]) {
      const int64_t width = std::min(kPanel, dims[level] - begin);
      strips.push_back({static_cast<int64_t>(level), begin, width, round_up(width, 16)});
      begin += width;
    }
  return strips;
}

template <class Factor>
PackedColumns<Factor>::PackedColumns(std::span<const int64_t> dims, int64_t first_level,
                                     int64_t end_level, int64_t group, int64_t count)
    : group_(group), steps_(0) {
  int64_t begin = 0;
  for (int64_t level = 0; level < static_cast<int64_t>(dims.size()); ++level) {
    const int64_t end = dims[static_cast<size_t>(level)];
    const bool packed = level >= first_level && level < end_level;
    levels_.push_back({begin, packed ? end - begin : 0, steps_});
    steps_ += steps(level);
    begin = end;
  }
  factors_.resize(static_cast<size_t>(round_up(count, group) * steps_));
}

template <class Factor>
void PackedColumns<Factor>::pack(int64_t i, const float* vector) {
  Factor* out = factors_.data() + i / group_ * steps_ * group_ + i % group_;
  for (const Level& level : levels_)
    for (int64_t j = 0; j < level.columns; ++j)
      set_term(out[(level.step + j / kTerms<Factor>)*group_], j, vector[level.begin + j]);
}

template <class Factor>
RowBlock<Factor>::RowBlock(const Stack& vectors, std::span<const int64_t> dims,
                           std::span<const Strip> strips, int64_t first, int64_t count)
    : first_(first),
      count_(count),
      exact_(dims, 0, exact_levels<Factor>(dims), kQueryTile, count),
      columns_(dims, exact_levels<Factor>(dims), kMostLevels, kQueryTile, count),
      offsets_(offsets_of(strips, steps_of<Factor>(count))) {
  strips_.resize(static_cast<size_t>(offsets_.back()));
  for (int64_t i = 0; i < count; ++i) {
    const float* row = vectors.row(first + i);
    exact_.pack(i, row);
    columns_.pack(i, row);
    pack_row(row, i, strips, offsets_, strips_.data());
  }
}

template <class Factor>
PackedVectors<Factor>::PackedVectors(const Stack& vectors, std::span<const int64_t> dims,
                                     bool as_columns, int threads)
    : vectors_(vectors),
      padded_(round_up(vectors.rows(), kPanel)),
      levels_(static_cast<int64_t>(dims.size())),
      exact_(dims, 0, exact_levels<Factor>(dims), kPanel, as_columns ? vectors.rows() : 0),
      columns_(dims, exact_levels<Factor>(dims), kMostLevels, kPanel,
               as_columns ? vectors.rows() : 0),
      scales_(static_cast<size_t>(levels_ * padded_)),
      dots_(static_cast<size_t>(levels_ * padded_)) {
  const std::vector<Strip> strips = strips_of(dims);
  offsets_ = offsets_of(strips, steps_of<Factor>(padded_));
  if (as_columns)
    strips_.resize(static_cast<size_t>(offsets_.back()));
  parallel_for(padded_ / kPanel, threads, [&](int64_t p) {
    for (int64_t i = p * kPanel; i < std::min(vectors.rows(), (p + 1) * kPanel); ++i) {
      measure(i, dims);
      if (!as_columns)
        continue;
      exact_.pack(i, vectors.row(i));
      columns_.pack(i, vectors.row(i));
      pack_row(vectors.row(i), i, strips, offsets_, strips_.data());
    }
  });
}

template <class Factor>
void PackedVectors<Factor>::measure(int64_t row, std::span<const int64_t> dims) {
  const float* values = vectors_.row(row);
  double squared_norm = 0;
  int64_t j = 0;
  for (size_t level = 0; level < dims.size(); ++level) {
    for (; j < dims[level]; ++j)
      squared_norm += static_cast<double>(values[j]) * static_cast<double>(values[j]);
    scales_[level * static_cast<size_t>(padded_) + static_cast<size_t>(row)] =
        static_cast<float>(1 / std::max(std::sqrt(squared_norm), kShortest));
  }
}

template <class Factor>
void PackedVectors<Factor>::subtract_projections(std::span<const Strip> strips, int threads,
                                                 const Matrix<float>& gradient) const {
  constexpr int64_t kRows = 64;
  parallel_for((count() + kRows - 1) / kRows, threads, [&](int64_t task) {
    for (int64_t i = task * kRows; i < std::min(count(), (task + 1) * kRows); ++i) {
      const float* row = vectors_.row(i);
      float* out = gradient.row(i);
      int64_t level = levels_;
      double along = 0;  // summed over this level and all above, which hold its columns too
      for (size_t s = strips.size(); s-- > 0;) {
        while (level > strips[s].level) {
          --level;
          const auto at = static_cast<size_t>(level * padded_ + i);
          // A length that was raised to its floor is a constant.
          if (const double scale = scales_[at]; scales_[at] < kLargestScale)
            along += scale * scale * static_cast<double>(dots_[at]);
        }
        for (int64_t j = strips[s].begin; j < strips[s].begin + strips[s].width; ++j)
          out[j] -= static_cast<float>(along * static_cast<double>(row[j]));
      }
    }
  });
}

template class RowBlock<float>;
template class RowBlock<Bfloat16x2>;
template class PackedVectors<float>;
template class PackedVectors<Bfloat16x2>;

}  // namespace ssra
