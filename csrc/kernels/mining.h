// Exact top-k under rules: an eight-bit screen, then float32 for what may still be among the best.
#pragma once

#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "kernels/panels.h"
#include "support/spans.h"

namespace ssra {

// What a query may get. Limits are inclusive. A margin turns the query's positive score p into an
// upper limit: p - absolute_margin, p - |p| * relative_margin; the lowest limit counts.
struct MiningRules {
  Ragged banned;
  std::span<const float> positive_scores;  // one per query, or empty: no margins
  std::optional<float> absolute_margin;
  std::optional<float> relative_margin;
  float min_score = -std::numeric_limits<float>::infinity();
  float max_score = std::numeric_limits<float>::infinity();
  int64_t skip_top = 0;  // how many of the best survivors to leave out

  float upper_limit(int64_t query) const;
};

class MiningIndex {
 public:
  // Throws where d is not within [1, 65536].
  MiningIndex(int64_t d, Metric metric);

  // Appends rows. They are read again by `mine`, so their memory must stay as it is; a memory map
  // will do. Ids are those given, or positions; all rows have ids, or none has, and no two the
  // same.
  void add(const Matrix<const float>& rows, std::span<const int64_t> ids, int threads);

  // For each query, the k best documents that the rules allow, best first, equal scores by lowest
  // id; the rest of a row is score -infinity and id -1. counts[q] is how many there are.
  //
  // The answer is that of float32 brute force, except with a probability below 1e-9 a call, taken
  // over the random rounding of the index, for vectors that were not made with knowledge of it. It
  // does not depend on the number of threads.
  void mine(const Matrix<const float>& queries, const MiningRules& rules, int threads,
            const Matrix<float>& scores, const Matrix<int64_t>& ids,
            std::span<int64_t> counts) const;

  int64_t size() const { return panels_.rows(); }
  int64_t dim() const { return d_; }
  const char* isa() const { return isa_.name; }
  int64_t bytes_held() const;

 private:
  void require_new(std::span<const int64_t> ids) const;

  friend class QueryChunk;
  struct Segment {
    int64_t first;  // position of its first row
    Matrix<const float> rows;
  };

  const float* row(int64_t position) const;
  int64_t id(int64_t position) const {
    return ids_.empty() ? position : ids_[static_cast<size_t>(position)];
  }

  int64_t d_;
  Metric metric_;
  const Isa& isa_;
  Panels panels_;
  std::vector<Segment> segments_;
  std::vector<int64_t> ids_;  // empty: ids are positions
  int64_t largest_id_ = -1;
};

}  // namespace ssra
