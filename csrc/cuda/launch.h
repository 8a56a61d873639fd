// Running a kernel over its grid.
#pragma once

#include <cstdint>

#include "cuda/block.h"
#include "support/check.h"

namespace ssra::cuda {

struct Launch {
  int threads;       // of a block
  int device;        // which GPU
  uintptr_t stream;  // a cudaStream_t
};

inline void require_block(int threads) {
  require(threads >= kFewestThreads && threads <= kMostThreads && (threads & (threads - 1)) == 0,
          "threads is ", threads, ", it must be a power of two within ", kFewestThreads, " and ",
          kMostThreads);
}

// Queues the kernel on the stream; nothing happens where the grid is empty. Throws
// std::invalid_argument where no block can have that many threads or so much shared memory, and
// std::runtime_error with CUDA's message where it refuses.
template <class Kernel>
void launch(const Kernel& kernel, const Launch& launch);

}  // namespace ssra::cuda
