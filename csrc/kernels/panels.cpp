#include "kernels/panels.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>

#include "support/check.h"
#include "support/parallel.h"

namespace ssra {

namespace {

constexpr double kShortest = 1e-12;      // the cosine of a shorter vector fades to zero
constexpr double kRoundUp = 1.0 + 1e-6;  // bounds become floats and must not fall short

}  // namespace

double divisor(Metric metric, double norm) {
  return metric == Metric::kCosine ? std::max(norm, kShortest) : 1.0;
}

Rounded rounded(const RowSummary& summary, int64_t d, const Dither& dither, double divisor) {
  const double step = dither.step(summary.largest);
  const double norm = std::sqrt(summary.squared_norm) * kRoundUp / divisor;
  const double error = step / divisor * std::sqrt(static_cast<double>(d)) / 2;
  return {static_cast<float>(1 / step), step / divisor, norm, norm + error * kRoundUp};
}

Panels::Panels(int64_t d, Metric metric, const Isa& isa)
    : d_(d),
      groups_((d + kGroup - 1) / kGroup),
      metric_(metric),
      isa_(isa),
      dither_(d, Side::kDocuments, isa.document_levels),
      query_dither_(d, Side::kQueries, 127) {}

uint64_t Panels::present(int64_t p) const {
  const int64_t documents = std::min(kPanel, rows_ - p * kPanel);
  return (uint64_t{1} << documents) - 1;
}

int64_t Panels::bytes_held() const {
  const auto whole =
      static_cast<int64_t>(steps_.size() + shifts_.size() + lengths_.size() + factors_.size());
  return count() * groups_ * kPanel * kGroup + whole * static_cast<int64_t>(sizeof(float));
}

void Panels::add(const Matrix<const float>& rows, int threads) {
  assert(rows.cols == d_);
  const int64_t total = rows_ + rows.rows;
  require(total < std::numeric_limits<uint32_t>::max(), "an index holds at most 2^32 - 2 vectors");
  const int64_t panels = (total + kPanel - 1) / kPanel;
  const int64_t first_panel = rows_ / kPanel;
  reserve(panels);

  std::atomic<int64_t> bad_row{rows.rows};
  parallel_for(panels - first_panel, threads, [&](int64_t task) {
    const int64_t bad = add_to_panel(first_panel + task, rows);
    for (int64_t seen = bad_row; bad < seen && !bad_row.compare_exchange_weak(seen, bad);) {
    }
  });
  if (bad_row < rows.rows) {
    const int64_t row = bad_row;
    require_usable({rows.row(row), 1, rows.cols, rows.stride}, "vectors", row);
  }

  rows_ = total;
  for (int64_t p = first_panel; p < panels; ++p) {
    Largest& largest = largest_[static_cast<size_t>(p)];
    for (int64_t i = p * kPanel; i < std::min(total, (p + 1) * kPanel); ++i) {
      largest.step = std::max(largest.step, static_cast<double>(steps_[static_cast<size_t>(i)]));
      largest.length =
          std::max(largest.length, static_cast<double>(lengths_[static_cast<size_t>(i)]));
    }
  }
}

void Panels::reserve(int64_t panels) {
  const int64_t panel_bytes = groups_ * kPanel * kGroup;
  const int64_t held = static_cast<int64_t>(panels_.size());
  if (panels > held) {
    slabs_.push_back(allocate_bytes((panels - held) * panel_bytes));
    for (int64_t p = held; p < panels; ++p)
      panels_.push_back(slabs_.back().get() + (p - held) * panel_bytes);
    std::memset(panels_.back(), 0, static_cast<size_t>(panel_bytes));  // it may stay half empty
  }
  const auto padded = static_cast<size_t>(panels * kPanel);
  largest_.resize(static_cast<size_t>(panels));
  steps_.resize(padded);
  shifts_.resize(padded);
  lengths_.resize(padded);
  if (metric_ == Metric::kCosine)
    factors_.resize(padded);
}

// Writes those rows that belong to panel p. Returns the first row that is not usable, or how many
// rows there are.
int64_t Panels::add_to_panel(int64_t p, const Matrix<const float>& rows) {
  const int64_t begin = std::max(rows_, p * kPanel);
  const int64_t end = std::min(rows_ + rows.rows, (p + 1) * kPanel);
  uint8_t* bytes = panels_[static_cast<size_t>(p)];
  for (int64_t i = begin; i < end; ++i) {
    const float* row = rows.row(i - rows_);
    const RowSummary summary = isa_.summarize(row, d_);
    if (!is_usable(summary.squared_norm)) [[unlikely]]
      return i - rows_;
    add_row(row, summary, i, bytes);
  }
  return rows.rows;
}

void Panels::add_row(const float* row, const RowSummary& summary, int64_t i, uint8_t* bytes) {
  const double by = divisor(metric_, std::sqrt(summary.squared_norm));
  const Rounded about = rounded(summary, d_, dither_, by);
  std::vector<uint8_t> columns(static_cast<size_t>(groups_ * kGroup));
  isa_.quantize(row, d_, about.inverse, dither_.shifts(), columns.data());
  for (int64_t g = 0; g < groups_; ++g)
    std::memcpy(bytes + (g * kPanel + i % kPanel) * kGroup, columns.data() + g * kGroup, kGroup);

  const double with_offset = isa_.weigh(columns.data(), d_, query_dither_.draws().data());
  const double product =
      with_offset - static_cast<double>(dither_.offset()) * query_dither_.sum_of_draws();
  const auto at = static_cast<size_t>(i);
  steps_[at] = static_cast<float>(about.step);
  shifts_[at] = static_cast<float>(-about.step * product);
  lengths_[at] = static_cast<float>(about.length);
  if (metric_ == Metric::kCosine)
    factors_[at] = static_cast<float>(1 / by);
}

}  // namespace ssra
