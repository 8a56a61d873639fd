#include <pybind11/stl.h>

#include "bindings/arrays.h"
#include "bindings/register.h"
#include "kernels/isa.h"
#include "kernels/mining.h"

namespace py = pybind11;

namespace ssra {

namespace {

void add(MiningIndex& index, const Array<float>& vectors, const Array<int64_t>& ids, int threads) {
  const auto rows = matrix(vectors, "vectors");
  const auto row_ids = span(ids, "ids");
  const py::gil_scoped_release unlocked;
  index.add(rows, row_ids, threads);
}

py::tuple mine(const MiningIndex& index, const Array<float>& queries, int64_t k,
               const Array<int64_t>& banned_offsets, const Array<int64_t>& banned_ids,
               const Array<float>& positive_scores, std::optional<float> absolute_margin,
               std::optional<float> relative_margin, float min_score, float max_score,
               int64_t skip_top, int threads) {
  require(k >= 1, "k is ", k, ", it must be at least 1");
  const auto query_rows = matrix(queries, "queries");
  const MiningRules rules{
      .banned = {span(banned_offsets, "banned offsets"), span(banned_ids, "banned ids")},
      .positive_scores = span(positive_scores, "positive_scores"),
      .absolute_margin = absolute_margin,
      .relative_margin = relative_margin,
      .min_score = min_score,
      .max_score = max_score,
      .skip_top = skip_top,
  };
  Array<float> scores({query_rows.rows, k});
  Array<int64_t> ids({query_rows.rows, k});
  Array<int64_t> counts(query_rows.rows);
  const auto score_rows = fresh_matrix(scores);
  const auto id_rows = fresh_matrix(ids);
  const std::span<int64_t> count_row(counts.mutable_data(), static_cast<size_t>(counts.size()));
  {
    const py::gil_scoped_release unlocked;
    index.mine(query_rows, rules, threads, score_rows, id_rows, count_row);
  }
  return py::make_tuple(scores, ids, counts);
}

MiningIndex make_index(int64_t dim, const std::string& metric) {
  require(metric == "ip" || metric == "cosine", "metric is '", metric,
          "', it must be 'ip' or 'cosine'");
  return {dim, metric == "ip" ? Metric::kInnerProduct : Metric::kCosine};
}

}  // namespace

void register_mining(py::module_& module) {
  py::class_<MiningIndex>(module, "MiningIndex")
      .def(py::init(&make_index), py::arg("dim"), py::arg("metric"))
      // The index reads the vectors again when it mines.
      .def("add", &add, py::keep_alive<1, 2>(), py::arg("vectors").noconvert(),
           py::arg("ids").noconvert(), py::arg("threads"))
      .def("mine", &mine, py::arg("queries").noconvert(), py::arg("k"),
           py::arg("banned_offsets").noconvert(), py::arg("banned_ids").noconvert(),
           py::arg("positive_scores").noconvert(), py::arg("absolute_margin"),
           py::arg("relative_margin"), py::arg("min_score"), py::arg("max_score"),
           py::arg("skip_top"), py::arg("threads"))
      .def_property_readonly("dim", &MiningIndex::dim)
      .def_property_readonly("size", &MiningIndex::size)
      .def_property_readonly("isa", &MiningIndex::isa)
      .def_property_readonly("bytes_held", &MiningIndex::bytes_held);
  module.def("available_isas", [] {
    std::vector<std::string> names;
    for (const Isa* isa : available_isas())
      names.emplace_back(isa->name);
    return names;
  });
}

}  // namespace ssra
