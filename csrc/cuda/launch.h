// Running a kernel over its grid.
#pragma once

#include <cstdint>

namespace ssra::cuda {

struct Launch {
  int threads;       // of a block
  int device;        // which GPU
  uintptr_t stream;  // a cudaStream_t
};

// Queues the kernel on the stream; nothing happens where the grid is empty. Throws
// std::invalid_argument where the number of threads is none a block can have, and
// std::runtime_error with CUDA's message where it refuses.
template <class Kernel>
void launch(const Kernel& kernel, const Launch& launch);

}  // namespace ssra::cuda
