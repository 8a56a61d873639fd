// AVX-512 with VNNI.
#include "kernels/avx512.h"

namespace ssra {

const Isa kIsaVnni = {
    .name = "vnni",
    .document_levels = 127,
    .summarize = summarize,
    .quantize = quantize,
    .weigh = weigh,
    .inner_products = inner_products,
    .screen = screen,
    .multiply = multiply<FloatProducts>,
    .multiply_pairs = multiply_pairs,
    .scale_row = scale_row,
    .sum_row = sum_row,
    .sum_columns = sum_columns,
    .weigh_row = weigh_row,
    .round_rows = round_rows,
};

}  // namespace ssra
