#include "kernels/mining.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/query_chunk.h"
#include "support/check.h"
#include "support/parallel.h"

namespace ssra {

namespace {
constexpr int64_t kMostColumns = 65536;     // sums of 255 * 127 a column stay within 32 bits
constexpr int64_t kQueriesPerChunk = 1024;  // each chunk reads all panels once
}  // namespace

float MiningRules::upper_limit(int64_t query) const {
  float limit = max_score;
  if (positive_scores.empty())
    return limit;
  const float positive = positive_scores[static_cast<size_t>(query)];
  if (absolute_margin)
    limit = std::min(limit, positive - *absolute_margin);
  if (relative_margin)
    limit = std::min(limit, positive - std::abs(positive) * *relative_margin);
  return limit;
}

MiningIndex::MiningIndex(int64_t d, Metric metric)
    : d_(d), metric_(metric), isa_(choose_isa()), panels_(d, metric, isa_) {
  require(d >= 1 && d <= kMostColumns, "dim is ", d, ", it must be within 1 and ", kMostColumns);
}

void MiningIndex::add(const Matrix<const float>& rows, std::span<const int64_t> ids, int threads) {
  require(rows.cols == d_, "vectors have ", rows.cols, " columns, the index has ", d_);
  require(threads >= 1, "threads is ", threads, ", it must be at least 1");
  const bool given = !ids.empty();
  require(!given || static_cast<int64_t>(ids.size()) == rows.rows, "ids: expected one for each of ",
          rows.rows, " vectors, got ", ids.size());
  if (rows.rows == 0)
    return;
  require(size() == 0 || given == !ids_.empty(),
          "ids: give them with every batch of vectors or with none");
  require_new(ids);
  const int64_t first = size();
  panels_.add(rows, threads);
  segments_.push_back({first, rows});
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  for (const int64_t id : ids)
    largest_id_ = std::max(largest_id_, id);
}

// Throws where an id is negative or known already.
void MiningIndex::require_new(std::span<const int64_t> ids) const {
  for (size_t i = 0; i < ids.size(); ++i)
    require(ids[i] >= 0, "ids: row ", i, " is ", ids[i], ", ids must not be negative");
  // Mostly ids only ever rise, and then there is nothing to look for.
  bool rising = true;
  int64_t last = largest_id_;
  for (const int64_t id : ids) {
    rising = rising && id > last;
    last = id;
  }
  if (rising)
    return;
  std::vector<int64_t> sorted(ids_);
  sorted.insert(sorted.end(), ids.begin(), ids.end());
  std::sort(sorted.begin(), sorted.end());
  const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
  if (twice != sorted.end())
    require(false, "ids: ", *twice, " appears twice");
}

void MiningIndex::mine(const Matrix<const float>& queries, const MiningRules& rules, int threads,
                       const Matrix<float>& scores, const Matrix<int64_t>& ids,
                       std::span<int64_t> counts) const {
  assert(scores.rows == queries.rows && ids.rows == queries.rows && scores.cols == ids.cols);
  assert(static_cast<int64_t>(counts.size()) == queries.rows);
  require(queries.cols == d_, "queries have ", queries.cols, " columns, the index has ", d_);
  require(scores.cols >= 1, "k is ", scores.cols, ", it must be at least 1");
  require(rules.skip_top >= 0, "skip_top is ", rules.skip_top, ", it must not be negative");
  require(threads >= 1, "threads is ", threads, ", it must be at least 1");
  require_ragged(rules.banned, queries.rows, "banned");
  require(rules.positive_scores.empty() ||
              static_cast<int64_t>(rules.positive_scores.size()) == queries.rows,
          "positive_scores: expected one for each of ", queries.rows, " queries, got ",
          rules.positive_scores.size());
  require(!std::isnan(rules.min_score), "min_score is NaN");
  require(!std::isnan(rules.max_score), "max_score is NaN");
  require(!std::isnan(rules.absolute_margin.value_or(0)), "absolute_margin is NaN");
  require(!std::isnan(rules.relative_margin.value_or(0)), "relative_margin is NaN");
  for (size_t q = 0; q < rules.positive_scores.size(); ++q)
    require(!std::isnan(rules.positive_scores[q]), "positive_scores: row ", q, " is NaN");
  require_usable(queries, "queries");

  const int64_t tiles = (queries.rows + kQueryTile - 1) / kQueryTile;
  const int64_t share = std::max<int64_t>(1, (tiles + threads - 1) / threads) * kQueryTile;
  const int64_t chunk = std::min(kQueriesPerChunk, share);
  parallel_for((queries.rows + chunk - 1) / chunk, threads, [&](int64_t task) {
    const int64_t first = task * chunk;
    QueryChunk part(*this, queries, rules, scores.cols, first,
                    std::min(queries.rows, first + chunk));
    part.search();
    part.write(scores, ids, counts);
  });
}

int64_t MiningIndex::bytes_held() const {
  return panels_.bytes_held() + static_cast<int64_t>(ids_.size() * sizeof(int64_t));
}

const float* MiningIndex::row(int64_t position) const {
  auto segment =
      std::upper_bound(segments_.begin(), segments_.end(), position,
                       [](int64_t at, const Segment& candidate) { return at < candidate.first; });
  --segment;
  return segment->rows.row(position - segment->first);
}

}  // namespace ssra
