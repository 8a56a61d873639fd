// The best of a tile of scores, under rules, merged into the best of the tiles before.
#pragma once

#include <cmath>

#include "cuda/block.h"

namespace ssra::cuda {

// Candidates in shared memory: the best so far, in order, then whatever has been offered since.
class CandidatePool {
 public:
  SSRA_EVERYWHERE static constexpr size_t bytes(int64_t size) {
    return static_cast<size_t>(size) * (sizeof(int64_t) + sizeof(float)) + sizeof(int);
  }

  SSRA_DEVICE CandidatePool(unsigned char* memory, int size)
      : ids_(reinterpret_cast<int64_t*>(memory)),
        scores_(reinterpret_cast<float*>(ids_ + size)),
        count_(reinterpret_cast<int*>(scores_ + size)) {}

  SSRA_DEVICE float score(int i) const { return scores_[i]; }
  SSRA_DEVICE int64_t id(int i) const { return ids_[i]; }
  SSRA_DEVICE int count() const { return *count_; }
  SSRA_DEVICE void set_count(int count) { *count_ = count; }

  SSRA_DEVICE void set(int i, float score, int64_t id) {
    scores_[i] = score;
    ids_[i] = id;
  }

  template <class Block>
  SSRA_DEVICE void append(Block& block, float score, int64_t id) {
    set(block.count_up(count_), score, id);
  }

  // Higher scores first, equal scores by lowest id.
  SSRA_DEVICE static bool better(float score, int64_t id, float other_score, int64_t other_id) {
    return score > other_score || (score == other_score && id < other_id);
  }

  // Sorts the first `count` (all threads call it, after a barrier) and keeps at most `kept`.
  // Returns how many are left.
  template <class Block>
  SSRA_DEVICE int sort(Block& block, int count, int kept) {
    int padded = 1;
    while (padded < count)
      padded *= 2;
    for (int i = count + block.thread(); i < padded; i += block.threads())
      set(i, -INFINITY, INT64_MAX);
    const int left = count < kept ? count : kept;
    if (block.thread() == 0)
      set_count(left);
    block.barrier();
    for (int width = 2; width <= padded; width *= 2)
      for (int step = width / 2; step > 0; step /= 2) {
        for (int pair = block.thread(); pair < padded / 2; pair += block.threads())
          order(pair, width, step);
        block.barrier();
      }
    return left;
  }

 private:
  // One exchange of a bitonic sort.
  SSRA_DEVICE void order(int pair, int width, int step) {
    const int low = 2 * pair - (pair & (step - 1));
    const int high = low + step;
    const bool rising = (low & width) != 0;
    const float score = scores_[low];
    const int64_t id = ids_[low];
    if (better(scores_[high], ids_[high], score, id) != rising) {
      set(low, scores_[high], ids_[high]);
      set(high, score, id);
    }
  }

  int64_t* ids_;
  float* scores_;
  int* count_;
};

// Which documents a query may get: those of csrc/kernels/mining.h. One block a query.
struct Select {
  static constexpr int kPerThread = 4;  // scores a thread looks at between two barriers

  const float* scores;  // [queries][columns], rows `row_stride` apart
  int64_t row_stride;
  int64_t queries;
  int64_t columns;
  const float* column_scales;  // [columns], what scores are multiplied by; null: 1
  const int64_t* ids;          // [columns]; null: first_id + column
  int64_t first_id;
  const int64_t* banned_offsets;  // [queries + 1]; null: nothing is banned
  const int64_t* banned_ids;      // rising for each query
  const float* positives;         // [queries]; null: no margins
  float absolute_margin;          // -infinity: none
  float relative_margin;          // -infinity: none
  float min_score;
  float max_score;
  int kept;            // how many to keep
  float* best_scores;  // [queries][kept], best first; whatever lies beyond `counts` stays as it is
  int64_t* best_ids;   // [queries][kept]
  int* counts;         // [queries]

  Grid grid(int) const { return {queries, 1}; }

  SSRA_EVERYWHERE size_t shared_bytes(int threads) const {
    return CandidatePool::bytes(pool_size(threads));
  }

  // A power of two that holds the best and everything offered between two barriers.
  SSRA_EVERYWHERE int pool_size(int threads) const {
    int size = 1;
    while (size < kept + kPerThread * threads)
      size *= 2;
    return size;
  }

  template <class Block>
  SSRA_DEVICE void operator()(Block& block) const {
    const int64_t query = block.x();
    const int size = pool_size(block.threads());
    CandidatePool pool(block.shared(), size);
    const int before = counts[query];
    for (int i = block.thread(); i < before; i += block.threads())
      pool.set(i, best_scores[query * kept + i], best_ids[query * kept + i]);
    if (block.thread() == 0)
      pool.set_count(before);
    block.barrier();

    const float limit = upper_limit(query);
    const int per_round = kPerThread * block.threads();
    int sorted = before;
    int count = before;
    bool changed = false;
    for (int64_t start = 0; start < columns; start += per_round) {
      offer(block, pool, query, start, limit, sorted);
      block.barrier();
      count = pool.count();
      block.barrier();  // nobody offers more before all have counted
      if (count + per_round > size) {
        count = sorted = pool.sort(block, count, kept);
        changed = true;
      }
    }
    if (count > sorted) {
      count = pool.sort(block, count, kept);
      changed = true;
    }
    if (changed)
      write(block, pool, query, count);
  }

 private:
  SSRA_DEVICE float upper_limit(int64_t query) const {
    if (positives == nullptr)
      return max_score;
    const float positive = positives[query];
    float limit = max_score;
    if (absolute_margin > -INFINITY)
      limit = fminf(limit, positive - absolute_margin);
    if (relative_margin > -INFINITY)
      limit = fminf(limit, positive - fabsf(positive) * relative_margin);
    return limit;
  }

  template <class Block>
  SSRA_DEVICE void offer(Block& block, CandidatePool& pool, int64_t query, int64_t start,
                         float limit, int sorted) const {
    const bool full = sorted == kept;
    const float* row = scores + query * row_stride;
    SSRA_UNROLL
    for (int i = 0; i < kPerThread; ++i) {
      const int64_t column = start + i * block.threads() + block.thread();
      if (column >= columns)
        continue;
      const float score =
          column_scales == nullptr ? row[column] : row[column] * column_scales[column];
      if (!(score >= min_score && score <= limit))  // never NaN
        continue;
      if (full && score < pool.score(kept - 1))
        continue;
      const int64_t id = ids == nullptr ? first_id + column : ids[column];
      if (full && !CandidatePool::better(score, id, pool.score(kept - 1), pool.id(kept - 1)))
        continue;
      if (!banned(query, id))
        pool.append(block, score, id);
    }
  }

  SSRA_DEVICE bool banned(int64_t query, int64_t id) const {
    if (banned_offsets == nullptr)
      return false;
    int64_t begin = banned_offsets[query];
    int64_t end = banned_offsets[query + 1];
    const int64_t last = end;
    while (begin < end) {
      const int64_t middle = begin + (end - begin) / 2;
      if (banned_ids[middle] < id)
        begin = middle + 1;
      else
        end = middle;
    }
    return begin < last && banned_ids[begin] == id;
  }

  template <class Block>
  SSRA_DEVICE void write(Block& block, const CandidatePool& pool, int64_t query, int count) const {
    for (int i = block.thread(); i < count; i += block.threads()) {
      best_scores[query * kept + i] = pool.score(i);
      best_ids[query * kept + i] = pool.id(i);
    }
    if (block.thread() == 0)
      counts[query] = count;
  }
};

}  // namespace ssra::cuda
