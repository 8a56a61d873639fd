// What a kernel sees of the block of threads that runs it.
//
// A kernel is a struct of its arguments with grid(), shared_bytes(threads) and
// operator()(Block&), which every thread of every block calls. Block is CudaBlock on a GPU; a test
// may give another one. It offers thread(), threads(), x(), y(), shared(), barrier() and
// count_up(counter).
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
#define SSRA_DEVICE __device__
#define SSRA_EVERYWHERE __host__ __device__
#define SSRA_UNROLL _Pragma("unroll")
#else
#define SSRA_DEVICE
#define SSRA_EVERYWHERE
#define SSRA_UNROLL
#endif

namespace ssra::cuda {

struct Grid {
  int64_t x = 1;
  int64_t y = 1;
};

// Blocks have a power of two of threads within these.
inline constexpr int kFewestThreads = 32;
inline constexpr int kMostThreads = 256;

SSRA_EVERYWHERE constexpr int64_t blocks_for(int64_t count, int64_t per_block) {
  return (count + per_block - 1) / per_block;
}

#ifdef __CUDACC__
class CudaBlock {
 public:
  SSRA_DEVICE int thread() const { return static_cast<int>(threadIdx.x); }
  SSRA_DEVICE int threads() const { return static_cast<int>(blockDim.x); }
  SSRA_DEVICE int64_t x() const { return blockIdx.x; }
  SSRA_DEVICE int64_t y() const { return blockIdx.y; }

  SSRA_DEVICE unsigned char* shared() const {
    extern __shared__ __align__(16) unsigned char memory[];
    return memory;
  }

  SSRA_DEVICE void barrier() const { __syncthreads(); }

  // Adds one to a counter in shared memory; returns what it was.
  SSRA_DEVICE int count_up(int* counter) const { return atomicAdd(counter, 1); }
};
#endif

}  // namespace ssra::cuda
