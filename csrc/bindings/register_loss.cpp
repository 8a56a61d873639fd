#include <pybind11/stl.h>

#include <string_view>

#include "bindings/arrays.h"
#include "bindings/register.h"
#include "kernels/loss.h"

namespace py = pybind11;

namespace ssra {

namespace {

py::tuple infonce(const Array<float>& queries, const Array<float>& positives,
                  const Array<float>& negatives, const Array<float>& grades, const std::vector<int64_t>& dims, double temperature,
                  bool self_contrast, double false_negative_margin, std::string_view products,
                  bool gradients, int threads) {
  require(products == "float32" || products == "bfloat16", "products is '", products,
          "', it must be 'float32' or 'bfloat16'");
  const LossArguments arguments{
      .queries = matrix(queries, "queries"),
      .positives = matrix(positives, "positives"),
      .negatives = matrix(negatives, "negatives"),
      .grades = span(grades, "grades"),
      .dims = dims,
      .temperature = temperature,
      .self_contrast = self_contrast,
      .false_negative_margin = false_negative_margin,
      .products = products == "float32" ? Products::kFloat32 : Products::kBfloat16,
      .gradients = gradients,
      .threads = threads,
  };
  const auto zeros = [&arguments](int64_t rows) {
    Array<float> array({arguments.gradients ? rows : 0, arguments.queries.cols});
    std::fill_n(array.mutable_data(), array.size(), 0.0F);
    return array;
  };
  Array<float> query_gradient = zeros(arguments.queries.rows);
  Array<float> candidate_gradient = zeros(arguments.positives.rows + arguments.negatives.rows);
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
             py::arg("positives").noconvert(), py::arg("negatives").noconvert(),
             py::arg("grades").noconvert(), py::arg("dims"), py::arg("temperature"), py::arg("self_contrast"), py::arg("false_negative_margin"),
             py::arg("products"), py::arg("gradients"), py::arg("threads"));
}

}  // namespace ssra
