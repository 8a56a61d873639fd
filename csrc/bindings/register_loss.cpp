#include <pybind11/stl.h>

#include <string_view>

#include "bindings/arrays.h"
#include "bindings/register.h"
#include "kernels/loss.h"

namespace py = pybind11;

namespace ssra {

namespace {

py::tuple infonce(const Array<float>& queries, const Array<float>& candidates,
                  const Array<float>& grades, const std::vector<int64_t>& dims, double temperature,
                  bool self_contrast, double false_negative_margin, std::string_view products,
                  bool gradients, int threads) {
  require(products == "float32" || products == "bfloat16", "products is '", products,
          "', it must be 'float32' or 'bfloat16'");
  const LossArguments arguments{
      .queries = matrix(queries, "queries"),
      .candidates = matrix(candidates, "candidates"),
      .grades = span(grades, "grades"),
      .dims = dims,
      .temperature = temperature,
      .self_contrast = self_contrast,
      .false_negative_margin = false_negative_margin,
      .products = products == "float32" ? Products::kFloat32 : Products::kBfloat16,
      .gradients = gradients,
      .threads = threads,
  };
  const auto zeros = [gradients](const Matrix<const float>& like) {
    Array<float> array({gradients ? like.rows : 0, like.cols});
    std::fill_n(array.mutable_data(), array.size(), 0.0F);
    return array;
  };
  Array<float> query_gradient = zeros(arguments.queries);
  Array<float> candidate_gradient = zeros(arguments.candidates);
  const auto query_rows = fresh_matrix(query_gradient);
  const auto candidate_rows = fresh_matrix(candidate_gradient);
  LossResult result;
  {
    const py::gil_scoped_release unlocked;
    result = graded_infonce(arguments, query_rows, candidate_rows);
  }
  return py::make_tuple(result.loss, query_gradient, candidate_gradient,
                        result.temperature_gradient);
}

}  // namespace

void register_loss(py::module_& module) {
  module.def("graded_infonce", &infonce, py::arg("queries").noconvert(),
             py::arg("candidates").noconvert(), py::arg("grades").noconvert(), py::arg("dims"),
             py::arg("temperature"), py::arg("self_contrast"), py::arg("false_negative_margin"),
             py::arg("products"), py::arg("gradients"), py::arg("threads"));
}

}  // namespace ssra
