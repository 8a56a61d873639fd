// Documents in eight bits, packed for the screen, with what bounds the error of their scores.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "kernels/dither.h"
#include "kernels/isa.h"
#include "support/memory.h"
#include "support/spans.h"

namespace ssra {

enum class Metric { kInnerProduct, kCosine };

// A vector divided by this is the vector that is scored: its length for the cosine (no shorter
// than 1e-12, as in torch.nn.functional.normalize), otherwise 1.
double divisor(Metric metric, double norm);

// A row once rounded.
struct Rounded {
  float inverse;  // what a column is multiplied with before it is rounded
  double step;    // of the vector that is scored
  double norm;    // upper bound of the length of that vector
  double length;  // the same for what the rounded row stands for
};

Rounded rounded(const RowSummary& summary, int64_t d, const Dither& dither, double divisor);

class Panels {
 public:
  Panels(int64_t d, Metric metric, const Isa& isa);

  // Appends rows. Throws, with nothing added, where a row is not finite or too long.
  void add(const Matrix<const float>& rows, int threads);

  int64_t rows() const { return rows_; }
  int64_t count() const { return (rows_ + kPanel - 1) / kPanel; }

  const Dither& dither() const { return dither_; }
  // The draws of queries, whose products with the rounded documents are part of the panels.
  const Dither& query_dither() const { return query_dither_; }

  // Panel p: its packed bytes, what Isa::screen takes with them, a bit for each document there is.
  const uint8_t* bytes(int64_t p) const { return panels_[static_cast<size_t>(p)]; }
  const float* steps(int64_t p) const { return steps_.data() + p * kPanel; }
  const float* shifts(int64_t p) const { return shifts_.data() + p * kPanel; }
  uint64_t present(int64_t p) const;

  // Largest step and length in the panel.
  double largest_step(int64_t p) const { return largest_[static_cast<size_t>(p)].step; }
  double largest_length(int64_t p) const { return largest_[static_cast<size_t>(p)].length; }

  // What the float32 product with document i is multiplied with: 1, or one over its length.
  float factor(int64_t i) const { return factors_.empty() ? 1 : factors_[static_cast<size_t>(i)]; }

  int64_t bytes_held() const;

 private:
  struct Largest {
    double step = 0;
    double length = 0;
  };
  void reserve(int64_t panels);
  int64_t add_to_panel(int64_t p, const Matrix<const float>& rows);
  void add_row(const float* row, const RowSummary& summary, int64_t i, uint8_t* bytes);

  int64_t d_;
  int64_t groups_;
  Metric metric_;
  const Isa& isa_;
  Dither dither_;
  Dither query_dither_;
  int64_t rows_ = 0;
  std::vector<Bytes> slabs_;  // one for each call of add() that needed more panels
  std::vector<uint8_t*> panels_;
  std::vector<Largest> largest_;
  std::vector<float> steps_;    // by document, whole panels
  std::vector<float> shifts_;   // likewise
  std::vector<float> lengths_;  // likewise
  std::vector<float> factors_;  // likewise; empty for inner products
};

}  // namespace ssra
