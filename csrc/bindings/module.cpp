#include <pybind11/pybind11.h>

#include "bindings/register.h"

PYBIND11_MODULE(_core, module) {
  module.doc() = "Compiled kernels of ssra_engine; use them through ssra_engine.kernels.";
  module.attr("__version__") = SSRA_VERSION;
  ssra::register_loss(module);
  ssra::register_mining(module);
  ssra::register_topk(module);
}
