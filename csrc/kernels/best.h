// The k best candidates of a query.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

namespace ssra {

struct Candidate {
  float score;
  int64_t id;
};

// Higher scores first, equal scores by lowest id.
inline bool better(const Candidate& a, const Candidate& b) {
  return a.score > b.score || (a.score == b.score && a.id < b.id);
}

// A heap whose root is the worst of the k best candidates offered so far.
class Best {
 public:
  explicit Best(int64_t k) : k_(static_cast<size_t>(k)) {}

  // What a candidate must reach to change anything; -infinity while there is room.
  float threshold() const {
    return heap_.size() < k_ ? -std::numeric_limits<float>::infinity() : heap_.front().score;
  }

  bool wants(const Candidate& candidate) const {
    return heap_.size() < k_ || better(candidate, heap_.front());
  }

  void offer(const Candidate& candidate) {
    if (!wants(candidate)) [[likely]]
      return;
    if (heap_.size() == k_) {
      std::pop_heap(heap_.begin(), heap_.end(), better);
      heap_.pop_back();
    }
    heap_.push_back(candidate);
    std::push_heap(heap_.begin(), heap_.end(), better);
  }

  // Writes all but the best `skip`, best first, then pads with score -infinity and id -1 up to
  // `count`. Returns how many candidates were written. Nothing may be offered afterwards.
  int64_t write(int64_t skip, int64_t count, float* scores, int64_t* ids) {
    std::sort_heap(heap_.begin(), heap_.end(), better);
    const int64_t found = std::clamp<int64_t>(static_cast<int64_t>(heap_.size()) - skip, 0, count);
    for (int64_t i = 0; i < found; ++i) {
      scores[i] = heap_[static_cast<size_t>(skip + i)].score;
      ids[i] = heap_[static_cast<size_t>(skip + i)].id;
    }
    std::fill(scores + found, scores + count, -std::numeric_limits<float>::infinity());
    std::fill(ids + found, ids + count, -1);
    return found;
  }

 private:
  size_t k_;
  std::vector<Candidate> heap_;
};

}  // namespace ssra
