#include "kernels/topk.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "support/check.h"
#include "support/parallel.h"

namespace ssra {

namespace {

// Sixteen partial sums: one AVX-512 register, two of AVX, four of SSE.
constexpr int64_t kLanes = 16;
using Lanes = float __attribute__((vector_size(kLanes * sizeof(float)), aligned(alignof(float))));

constexpr int64_t kQueryTile = 4;      // queries that share one pass over a document
constexpr int64_t kQueriesPerTask = 32;
constexpr int64_t kDocumentBlockBytes = 256 << 10;  // stays in L2 while a task's queries pass

struct Candidate {
  float score;
  int64_t id;
};

bool better(const Candidate& a, const Candidate& b) {
  return a.score > b.score || (a.score == b.score && a.id < b.id);
}

// The k best candidates seen, as a heap whose root is the worst of them.
class Best {
 public:
  Best(int64_t k, std::span<const int64_t> banned) : k_(static_cast<size_t>(k)), banned_(banned.begin(), banned.end()) {
    std::sort(banned_.begin(), banned_.end());
  }

  void offer(Candidate candidate) {
    if (heap_.size() == k_ && !better(candidate, heap_.front())) [[likely]]
      return;
    if (std::binary_search(banned_.begin(), banned_.end(), candidate.id))
      return;
    if (heap_.size() == k_) {
      std::pop_heap(heap_.begin(), heap_.end(), better);
      heap_.pop_back();
    }
    heap_.push_back(candidate);
    std::push_heap(heap_.begin(), heap_.end(), better);
  }

  void write(float* scores, int64_t* ids) {
    std::sort_heap(heap_.begin(), heap_.end(), better);
    heap_.resize(k_, {-std::numeric_limits<float>::infinity(), -1});
    for (size_t i = 0; i < k_; ++i) {
      scores[i] = heap_[i].score;
      ids[i] = heap_[i].id;
    }
  }

 private:
  size_t k_;
  std::vector<int64_t> banned_;
  std::vector<Candidate> heap_;
};

// Inner products of `count` query rows with one document. The order of additions is the same for
// every pair of rows, whatever `count` is, so equal rows get equal scores.
template <int64_t count>
[[gnu::always_inline]] inline void dots(const float* const* queries, const float* document,
                                        int64_t d, float* out) {
  Lanes sums[count] = {};
  int64_t j = 0;
  for (; j + kLanes <= d; j += kLanes) {
    const Lanes values = *reinterpret_cast<const Lanes*>(document + j);
    for (int64_t q = 0; q < count; ++q)
      sums[q] += *reinterpret_cast<const Lanes*>(queries[q] + j) * values;
  }
  for (int64_t q = 0; q < count; ++q) {
    Lanes folded = sums[q];
    for (int64_t width = kLanes / 2; width > 0; width /= 2)
      for (int64_t lane = 0; lane < width; ++lane)
        folded[lane] += folded[lane + width];
    float sum = folded[0];
    for (int64_t rest = j; rest < d; ++rest)
      sum += queries[q][rest] * document[rest];
    out[q] = sum;
  }
}

// Offers documents [begin, end) to the queries [first, first + best.size()).
[[gnu::target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")]]
void score_block(const Matrix<const float>& queries, int64_t first,
                 const Matrix<const float>& documents, int64_t begin, int64_t end,
                 std::span<Best> best) {
  const auto count = static_cast<int64_t>(best.size());
  for (int64_t q = 0; q < count; q += kQueryTile) {
    const int64_t tile = std::min(kQueryTile, count - q);
    const float* rows[kQueryTile];
    for (int64_t i = 0; i < kQueryTile; ++i)
      rows[i] = queries.row(first + q + std::min(i, tile - 1));
    for (int64_t document = begin; document < end; ++document) {
      float scores[kQueryTile];
      dots<kQueryTile>(rows, documents.row(document), documents.cols, scores);
      for (int64_t i = 0; i < tile; ++i)
        best[static_cast<size_t>(q + i)].offer({scores[i], document});
    }
  }
}

}  // namespace

void exact_topk(const Matrix<const float>& queries, const Matrix<const float>& documents,
                const Ragged& banned, int threads, const Matrix<float>& scores,
                const Matrix<int64_t>& ids) {
  assert(scores.rows == queries.rows && ids.rows == queries.rows && scores.cols == ids.cols);
  require(queries.cols == documents.cols, "queries have ", queries.cols,
          " columns, documents have ", documents.cols);
  require(scores.cols >= 1, "k is ", scores.cols, ", it must be at least 1");
  require(threads >= 1, "threads is ", threads, ", it must be at least 1");
  require_ragged(banned, queries.rows, "banned");
  require_finite(queries, "queries");
  require_finite(documents, "documents");

  const int64_t row_bytes = std::max<int64_t>(1, documents.cols) * static_cast<int64_t>(sizeof(float));
  const int64_t block = std::max<int64_t>(1, kDocumentBlockBytes / row_bytes);
  const int64_t tasks = (queries.rows + kQueriesPerTask - 1) / kQueriesPerTask;
  parallel_for(tasks, threads, [&](int64_t task) {
    const int64_t first = task * kQueriesPerTask;
    const int64_t last = std::min(queries.rows, first + kQueriesPerTask);
    std::vector<Best> best;
    for (int64_t q = first; q < last; ++q)
      best.emplace_back(scores.cols, banned[q]);
    for (int64_t begin = 0; begin < documents.rows; begin += block)
      score_block(queries, first, documents, begin, std::min(documents.rows, begin + block), best);
    for (int64_t q = first; q < last; ++q)
      best[static_cast<size_t>(q - first)].write(scores.row(q), ids.row(q));
  });
}

}  // namespace ssra
