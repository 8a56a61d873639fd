// One function per kernel; each adds that kernel to the module.
#pragma once

#include <pybind11/pybind11.h>

namespace ssra {

void register_loss(pybind11::module_& module);
void register_mining(pybind11::module_& module);
void register_cuda(pybind11::module_& module);  // only in the module _cuda
void register_topk(pybind11::module_& module);

}  // namespace ssra
