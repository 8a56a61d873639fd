// Blocks of threads on the host: each thread is a fiber that runs until its next barrier.
//
// Within two barriers the fibers of a block run one after the other, in an order that can be
// chosen: results that depend on it have a race. A barrier can be left out, to see that something
// notices. Shared memory holds no zeros at first, and what lies beside it is watched.
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <source_location>
#include <string>

namespace ssra::cuda {

class EmulatedBlock {
 public:
  EmulatedBlock(int threads, int64_t x, int64_t y, unsigned char* shared)
      : threads_(threads), x_(x), y_(y), shared_(shared) {}

  int thread() const { return thread_; }
  int threads() const { return threads_; }
  int64_t x() const { return x_; }
  int64_t y() const { return y_; }
  unsigned char* shared() const { return shared_; }
  void barrier(std::source_location site = std::source_location::current());
  int count_up(int* counter) const { return (*counter)++; }

  void enter(int thread) { thread_ = thread; }

 private:
  int thread_ = 0;
  int threads_;
  int64_t x_;
  int64_t y_;
  unsigned char* shared_;
};

struct Emulation {
  // 0: rising, 1: falling, otherwise the seed of an order that changes at every barrier.
  uint64_t order = 0;
  std::string skipped;             // the barrier to leave out, as in `barriers`
  std::set<std::string> barriers;  // those that were reached: file:line
};

Emulation& emulation();

// Throws std::logic_error where the threads of a block part at a barrier, or where one writes
// beside its shared memory.
void run_block(const std::function<void(EmulatedBlock&)>& kernel, int threads, int64_t x, int64_t y,
               size_t shared_bytes);

}  // namespace ssra::cuda
