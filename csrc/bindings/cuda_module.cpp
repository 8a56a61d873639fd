#include <pybind11/pybind11.h>

#include "bindings/register.h"

PYBIND11_MODULE(_cuda, module) {
  module.doc() = "CUDA kernels of ssra_engine; use them through ssra_engine.kernels.";
  module.attr("device_type") = "cuda";
  ssra::register_cuda(module);
}
