// The module _cuda again, with kernels that run on the host.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <utility>

#include "bindings/register.h"
#include "cuda/contrast.h"
#include "cuda/launch.h"
#include "cuda/select.h"
#include "emulation.h"

namespace py = pybind11;

namespace ssra::cuda {

// Blocks of a grid run in no particular order either.
template <class Kernel>
void launch(const Kernel& kernel, const Launch& launch) {
  require_block(launch.threads);
  const Grid grid = kernel.grid(launch.threads);
  const int64_t blocks = grid.x * grid.y;
  for (int64_t i = 0; i < blocks; ++i) {
    const int64_t at = emulation().order % 2 == 0 ? i : blocks - 1 - i;
    run_block([&](EmulatedBlock& block) { kernel(block); }, launch.threads, at % grid.x,
              at / grid.x, kernel.shared_bytes(launch.threads));
  }
}

template void launch(const Select&, const Launch&);
template void launch(const AddRowSums&, const Launch&);
template void launch(const AddColumnSums&, const Launch&);
template void launch(const FinishSums&, const Launch&);
template void launch(const Weigh&, const Launch&);

namespace {

// Kernels for the tests of the emulation itself.
struct SumAll {
  const float* values;
  float* sum;
  bool with_barrier;

  template <class Block>
  void operator()(Block& block) const {
    auto* shared = reinterpret_cast<float*>(block.shared());
    shared[block.thread()] = values[block.thread()];
    if (with_barrier)
      block.barrier();
    if (block.thread() == 0) {
      *sum = 0;
      for (int i = 0; i < block.threads(); ++i)
        *sum += shared[i];
    }
  }
};

float sum_all(const std::vector<float>& values, bool with_barrier, size_t shared_bytes) {
  float sum = 0;
  const SumAll kernel{values.data(), &sum, with_barrier};
  run_block([&](EmulatedBlock& block) { kernel(block); }, static_cast<int>(values.size()), 0, 0,
            shared_bytes);
  return sum;
}

void part_at_a_barrier() {
  run_block(
      [](EmulatedBlock& block) {
        if (block.thread() != 3)
          block.barrier();
      },
      32, 0, 0, 0);
}

}  // namespace

}  // namespace ssra::cuda

PYBIND11_MODULE(_cuda_emulated, module) {
  using ssra::cuda::emulation;
  module.attr("device_type") = "cpu";
  ssra::register_cuda(module);
  module.def("set_order", [](uint64_t order) { emulation().order = order; });
  module.def("skip_barrier", [](const std::string& name) { emulation().skipped = name; });
  module.def("take_barriers", [] { return std::exchange(emulation().barriers, {}); });
  module.def("sum_all", &ssra::cuda::sum_all);
  module.def("part_at_a_barrier", &ssra::cuda::part_at_a_barrier);
}
