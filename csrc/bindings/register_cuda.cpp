// Kernels on a GPU. Tensors are somebody else's: they arrive as addresses, 0 for none. Types are
// local to their module, as tests load a second one.
#include <pybind11/pybind11.h>

#include "bindings/register.h"
#include "cuda/contrast.h"
#include "cuda/launch.h"
#include "cuda/select.h"

namespace py = pybind11;

namespace ssra {

namespace {

using Address = uintptr_t;

template <class T>
T* pointer(Address address) {
  return reinterpret_cast<T*>(address);
}

void register_select(py::module_& module) {
  using cuda::Select;
  module.def(
      "select",
      [](const cuda::Launch& launch, Address scores, int64_t row_stride, int64_t queries,
         int64_t columns, Address column_scales, Address ids, int64_t first_id,
         Address banned_offsets, Address banned_ids, Address positives, float absolute_margin,
         float relative_margin, float min_score, float max_score, int kept, Address best_scores,
         Address best_ids, Address counts) {
        cuda::launch(Select{pointer<const float>(scores), row_stride, queries, columns,
                            pointer<const float>(column_scales), pointer<const int64_t>(ids),
                            first_id, pointer<const int64_t>(banned_offsets),
                            pointer<const int64_t>(banned_ids), pointer<const float>(positives),
                            absolute_margin, relative_margin, min_score, max_score, kept,
                            pointer<float>(best_scores), pointer<int64_t>(best_ids),
                            pointer<int>(counts)},
                     launch);
      },
      py::arg("launch"), py::kw_only(), py::arg("scores"), py::arg("row_stride"),
      py::arg("queries"), py::arg("columns"), py::arg("column_scales"), py::arg("ids"),
      py::arg("first_id"), py::arg("banned_offsets"), py::arg("banned_ids"), py::arg("positives"),
      py::arg("absolute_margin"), py::arg("relative_margin"), py::arg("min_score"),
      py::arg("max_score"), py::arg("kept"), py::arg("best_scores"), py::arg("best_ids"),
      py::arg("counts"));
}

void register_anchors(py::module_& module) {
  using cuda::Anchors;
  py::class_<Anchors>(module, "Anchors", py::module_local())
      .def(py::init([](int64_t count, Address positives, Address ceilings, Address largest,
                       Address others, Address shares, Address pulls) {
             return Anchors{count,
                            pointer<const float>(positives),
                            pointer<const float>(ceilings),
                            pointer<float>(largest),
                            pointer<float>(others),
                            pointer<float>(shares),
                            pointer<float>(pulls)};
           }),
           py::kw_only(), py::arg("count"), py::arg("positives"), py::arg("ceilings"),
           py::arg("largest"), py::arg("others"), py::arg("shares"), py::arg("pulls"));
  module.def(
      "finish_sums",
      [](const cuda::Launch& launch, const Anchors& anchors, int levels, int64_t first, int64_t end,
         Address grades, Address temperature, Address losses) {
        cuda::launch(
            cuda::FinishSums{anchors, levels, first, end, pointer<const float>(grades),
                             pointer<const float>(temperature), pointer<double>(losses)},
            launch);
      },
      py::arg("launch"), py::arg("anchors"), py::kw_only(), py::arg("levels"), py::arg("first"),
      py::arg("end"), py::arg("grades"), py::arg("temperature"), py::arg("losses"));
}

void register_tile(py::module_& module) {
  using cuda::ContrastTile;
  py::class_<ContrastTile>(module, "ContrastTile", py::module_local())
      .def(py::init([](Address products, int64_t level_stride, int64_t row_stride, int64_t rows,
                       int64_t columns, int64_t first_row, int64_t first_column, int levels,
                       Address row_scales, int64_t row_scales_stride, Address column_scales,
                       int64_t column_scales_stride, Address temperature, bool symmetric,
                       const cuda::Anchors& anchors) {
             return ContrastTile{pointer<float>(products),
                                 level_stride,
                                 row_stride,
                                 rows,
                                 columns,
                                 first_row,
                                 first_column,
                                 levels,
                                 pointer<const float>(row_scales),
                                 row_scales_stride,
                                 pointer<const float>(column_scales),
                                 column_scales_stride,
                                 pointer<const float>(temperature),
                                 symmetric,
                                 anchors};
           }),
           py::kw_only(), py::arg("products"), py::arg("level_stride"), py::arg("row_stride"),
           py::arg("rows"), py::arg("columns"), py::arg("first_row"), py::arg("first_column"),
           py::arg("levels"), py::arg("row_scales"), py::arg("row_scales_stride"),
           py::arg("column_scales"), py::arg("column_scales_stride"), py::arg("temperature"),
           py::arg("symmetric"), py::arg("anchors"));
  module.def(
      "add_row_sums",
      [](const cuda::Launch& launch, const ContrastTile& tile) {
        cuda::launch(cuda::AddRowSums{tile}, launch);
      },
      py::arg("launch"), py::arg("tile"));
  module.def(
      "add_column_sums",
      [](const cuda::Launch& launch, const ContrastTile& tile) {
        cuda::launch(cuda::AddColumnSums{tile}, launch);
      },
      py::arg("launch"), py::arg("tile"));
  module.def(
      "weigh",
      [](const cuda::Launch& launch, const ContrastTile& tile, Address row_dots,
         Address column_dots) {
        cuda::launch(cuda::Weigh{tile, pointer<float>(row_dots), pointer<float>(column_dots)},
                     launch);
      },
      py::arg("launch"), py::arg("tile"), py::kw_only(), py::arg("row_dots"),
      py::arg("column_dots"));
}

}  // namespace

void register_cuda(py::module_& module) {
  py::class_<cuda::Launch>(module, "Launch", py::module_local())
      .def(py::init([](int threads, int device, Address stream) {
             return cuda::Launch{threads, device, stream};
           }),
           py::kw_only(), py::arg("threads"), py::arg("device"), py::arg("stream"))
      .def_readonly("threads", &cuda::Launch::threads);
  module.attr("WEIGH_ROWS") = cuda::Weigh::kRows;
  register_select(module);
  register_anchors(module);
  register_tile(module);
}

}  // namespace ssra
