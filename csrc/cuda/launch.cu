#include "cuda/launch.h"

#include <cuda_runtime.h>

#include "cuda/contrast.h"
#include "cuda/select.h"

namespace ssra::cuda {

namespace {

constexpr size_t kSharedWithoutAsking = 48 * 1024;

void succeed(cudaError_t status, const char* what) {
  if (status == cudaSuccess) [[likely]]
    return;
  std::ostringstream message;
  message << what << ": " << cudaGetErrorString(status) << " (" << cudaGetErrorName(status) << ")";
  throw std::runtime_error(message.str());
}

void allow_shared(const void* entry, size_t bytes, int device) {
  if (bytes <= kSharedWithoutAsking)
    return;
  int most = 0;
  succeed(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
          "asking for the shared memory of a block");
  require(bytes <= static_cast<size_t>(most), "a block needs ", bytes,
          " bytes of shared memory, this GPU has ", most, "; ask for a smaller k and skip_top");
  succeed(cudaFuncSetAttribute(entry, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(bytes)),
          "asking for more shared memory");
}

template <class Kernel>
__global__ void __launch_bounds__(kMostThreads) entry(const Kernel kernel) {
  CudaBlock block;
  kernel(block);
}

}  // namespace

template <class Kernel>
void launch(const Kernel& kernel, const Launch& launch) {
  const int threads = launch.threads;
  require_block(threads);
  const Grid grid = kernel.grid(threads);
  if (grid.x == 0 || grid.y == 0)
    return;
  succeed(cudaSetDevice(launch.device), "choosing the GPU");
  const size_t bytes = kernel.shared_bytes(threads);
  allow_shared(reinterpret_cast<const void*>(&entry<Kernel>), bytes, launch.device);
  const dim3 blocks(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y));
  entry<Kernel><<<blocks, static_cast<unsigned>(threads), bytes,
                  reinterpret_cast<cudaStream_t>(launch.stream)>>>(kernel);
  succeed(cudaGetLastError(), "launching a kernel");
}

template void launch(const Select&, const Launch&);
template void launch(const AddRowSums&, const Launch&);
template void launch(const AddColumnSums&, const Launch&);
template void launch(const FinishSums&, const Launch&);
template void launch(const Weigh&, const Launch&);

}  // namespace ssra::cuda
