#include "kernels/topk.h"

#include <algorithm>
#include <vector>

#include "kernels/best.h"
#include "kernels/isa.h"
#include "support/check.h"
#include "support/parallel.h"

namespace ssra {

namespace {

constexpr int64_t kQueriesPerTask = 32;
constexpr int64_t kDocumentBlockBytes = 256 << 10;  // stays in cache while a task's queries pass

// Some queries on their way through all documents.
class Search {
 public:
  Search(const Matrix<const float>& queries, const Matrix<const float>& documents,
         const Ragged& banned, int64_t k, int64_t first, int64_t last)
      : isa_(choose_isa()), queries_(queries), documents_(documents), first_(first) {
    for (int64_t q = first; q < last; ++q) {
      best_.emplace_back(k);
      banned_.emplace_back(banned[q].begin(), banned[q].end());
      std::sort(banned_.back().begin(), banned_.back().end());
    }
  }

  void offer(int64_t begin, int64_t end) {
    for (size_t q = 0; q < best_.size(); ++q)
      for (int64_t document = begin; document < end; document += kRowsAtOnce)
        offer(q, document, std::min(kRowsAtOnce, end - document));
  }

  void write(const Matrix<float>& scores, const Matrix<int64_t>& ids) {
    for (size_t q = 0; q < best_.size(); ++q) {
      const int64_t row = first_ + static_cast<int64_t>(q);
      best_[q].write(0, scores.cols, scores.row(row), ids.row(row));
    }
  }

 private:
  void offer(size_t q, int64_t document, int64_t count) {
    const float* rows[kRowsAtOnce];
    for (int64_t i = 0; i < kRowsAtOnce; ++i)
      rows[i] = documents_.row(document + std::min(i, count - 1));
    float products[kRowsAtOnce];
    isa_.inner_products(queries_.row(first_ + static_cast<int64_t>(q)), rows, documents_.cols,
                        products);
    const auto& banned = banned_[q];
    for (int64_t i = 0; i < count; ++i) {
      const Candidate candidate{products[i], document + i};
      if (best_[q].wants(candidate) &&
          !std::binary_search(banned.begin(), banned.end(), candidate.id))
        best_[q].offer(candidate);
    }
  }

  const Isa& isa_;
  const Matrix<const float>& queries_;
  const Matrix<const float>& documents_;
  const int64_t first_;
  std::vector<Best> best_;
  std::vector<std::vector<int64_t>> banned_;
};

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
  require_usable(queries, "queries");
  require_usable(documents, "documents");

  const auto row_bytes = std::max<int64_t>(1, documents.cols) * int64_t{sizeof(float)};
  const int64_t block = std::max<int64_t>(kRowsAtOnce, kDocumentBlockBytes / row_bytes);
  const int64_t tasks = (queries.rows + kQueriesPerTask - 1) / kQueriesPerTask;
  parallel_for(tasks, threads, [&](int64_t task) {
    const int64_t first = task * kQueriesPerTask;
    Search search(queries, documents, banned, scores.cols, first,
                  std::min(queries.rows, first + kQueriesPerTask));
    for (int64_t begin = 0; begin < documents.rows; begin += block)
      search.offer(begin, std::min(documents.rows, begin + block));
    search.write(scores, ids);
  });
}

}  // namespace ssra
