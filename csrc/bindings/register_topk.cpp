#include "bindings/arrays.h"
#include "bindings/register.h"
#include "kernels/topk.h"

namespace py = pybind11;

namespace ssra {

namespace {

py::tuple topk(const Array<float>& queries, const Array<float>& documents, int64_t k,
               const Array<int64_t>& banned_offsets, const Array<int64_t>& banned_ids,
               int threads) {
  require(k >= 1, "k is ", k, ", it must be at least 1");
  const auto query_rows = matrix(queries, "queries");
  const auto document_rows = matrix(documents, "documents");
  const Ragged banned{span(banned_offsets, "banned offsets"), span(banned_ids, "banned ids")};
  Array<float> scores({query_rows.rows, k});
  Array<int64_t> ids({query_rows.rows, k});
  const auto score_rows = fresh_matrix(scores);
  const auto id_rows = fresh_matrix(ids);
  {
    const py::gil_scoped_release unlocked;
    exact_topk(query_rows, document_rows, banned, threads, score_rows, id_rows);
  }
  return py::make_tuple(scores, ids);
}

}  // namespace

void register_topk(py::module_& module) {
  module.def("exact_topk", &topk, py::arg("queries").noconvert(), py::arg("documents").noconvert(),
             py::arg("k"), py::arg("banned_offsets").noconvert(), py::arg("banned_ids").noconvert(),
             py::arg("threads"));
}

}  // namespace ssra
