#include "support/parallel.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace ssra {

void parallel_for(int64_t count, int threads, const std::function<void(int64_t)>& body) {
  std::atomic<int64_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_lock;

  const auto work = [&] {
    try {
      for (int64_t i = next++; i < count; i = next++)
        body(i);
    } catch (...) {
      next = count;
      const std::lock_guard guard(failure_lock);
      if (!failure)
        failure = std::current_exception();
    }
  };

  {
    std::vector<std::jthread> others;
    const int64_t wanted = std::min<int64_t>(threads, count);
    for (int64_t i = 1; i < wanted; ++i)
      others.emplace_back(work);
    work();
  }
  if (failure)
    std::rethrow_exception(failure);
}

}  // namespace ssra
