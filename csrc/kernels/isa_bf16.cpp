// AVX-512 with VNNI and BF16.
#include "kernels/avx512.h"

namespace ssra {

namespace {

struct Bfloat16Products {
  using Factor = Bfloat16x2;

  [[gnu::always_inline]] static __m512i load(const Bfloat16x2* factors) {
    return _mm512_loadu_si512(factors);
  }
  [[gnu::always_inline]] static __m512i spread(const Bfloat16x2* factor) {
    return _mm512_set1_epi32(ssra::load<int32_t>(factor));
  }
  // sum += a.terms[0] * b.terms[0] + a.terms[1] * b.terms[1]; denormals count as zero.
  [[gnu::always_inline]] static void multiply_add(__m512& sum, __m512i a, __m512i b) {
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  }
};

}  // namespace

const Isa kIsaBf16 = {
    .name = "bf16",
    .document_levels = 127,
    .summarize = summarize,
    .quantize = quantize,
    .weigh = weigh,
    .inner_products = inner_products,
    .screen = screen,
    .multiply = multiply<FloatProducts>,
    .multiply_pairs = multiply<Bfloat16Products>,
    .scale_row = scale_row,
    .sum_row = sum_row,
    .sum_columns = sum_columns,
    .weigh_row = weigh_row,
    .round_rows = round_rows,
};

}  // namespace ssra
