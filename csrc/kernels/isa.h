// What depends on the instruction set: one table of functions per set, one file per table.
//
// Documents lie in panels of 48, eight-bit, in groups of four columns: panel[group][document][4],
// so that one 64-byte register holds four columns of sixteen documents. Columns are padded with
// zeros to a multiple of four. Values are unsigned, with an offset: the products of `offset` and
// the query are a constant of the query, which the caller subtracts through `corrections`.
// Queries lie in tiles of 8, signed: tile[group][query][4].
#pragma once

#include <cstdint>
#include <vector>

namespace ssra {

constexpr int64_t kPanel = 48;      // documents
constexpr int64_t kQueryTile = 8;   // queries
constexpr int64_t kGroup = 4;       // columns
constexpr int64_t kRowsAtOnce = 4;  // rows of one call of inner_products

// What is known of a row before it is quantised.
struct RowSummary {
  float largest;        // largest absolute value
  double squared_norm;  // NaN or infinite where a value is
};

// Documents of one panel whose approximate scores lie within the limits of a query.
struct Hits {
  uint64_t masks[kQueryTile];  // bit i is document i of the panel
  // Approximate score divided by the query's scale; written only for queries with a bit set.
  alignas(64) float values[kQueryTile][kPanel];
};

// Two neighbouring terms of a sum, rounded to bfloat16.
struct Bfloat16x2 {
  uint16_t terms[2];
};

// How many terms of a sum of products a factor stands for.
template <class Factor>
constexpr int64_t kTerms = 1;
template <>
inline constexpr int64_t kTerms<Bfloat16x2> = 2;

// out[i][j] = init[i][j] + sum over k of a[i * a_row + k * a_step] * b[k * b_step + j], for the
// first `rows` of 8 and `width` of 48 columns. All of the 8 rows of a, and b up to a multiple of 16
// columns, must be there. Without init it starts from zero. Factors are floats, or pairs whose
// terms are multiplied one by one; sums are floats.
template <class Factor>
struct ProductTile {
  const Factor* a;
  int64_t a_row;
  int64_t a_step;
  const Factor* b;
  int64_t b_step;
  int64_t steps;
  const float* init;
  float* out;
  int64_t out_row;
  int64_t rows;
  int64_t width;
};

constexpr int64_t kMostLevels = 16;  // Matryoshka dims
constexpr float kExcluded = -1e30F;  // the cosine of a pair that is none

// One level of weigh_row: a row of cosines, and what its weights are made of. The weight of a pair
// is share * exp((cosine - largest) / temperature), or nothing where the cosine is above the
// ceiling. `column_...` are the same of the other side, null where weights go one way only, and
// sums for it.
struct PairLevel {
  float* cosines;
  float ceiling;
  float largest;
  float share;
  float row_scale;
  float row_dot;  // grows by the sum of weight * cosine
  const float* column_ceilings;
  const float* column_largest;
  const float* column_shares;
  const float* column_scales;
  float* column_dots;
};

struct PairRow {
  PairLevel at[kMostLevels];
  int64_t levels;
  float inverse_temperature;
};

struct Isa {
  const char* name;

  // Largest absolute value of a quantised document: 127, or less where products would saturate.
  int document_levels;

  RowSummary (*summarize)(const float* row, int64_t d);

  // out[j] = floor(row[j] * inverse_scale + shifts[j]). The caller sees to it that this is within
  // 0 and 255.
  void (*quantize)(const float* row, int64_t d, float inverse_scale, const float* shifts,
                   uint8_t* out);

  // The sum over columns of byte * weight.
  float (*weigh)(const uint8_t* bytes, int64_t d, const float* weights);

  // The inner products of one vector with four rows. A product depends on its two rows only: not on
  // the place of a row, not on its neighbours.
  void (*inner_products)(const float* vector, const float* const* rows, int64_t d, float* out);

  // For all pairs of a panel and a query tile:
  //   value = (sum over columns of document * query + corrections[query]) * scales[document]
  //           + shifts[document]
  // and a bit for each low[query] <= value <= high[query].
  void (*screen)(const uint8_t* panel, const float* scales, const float* shifts,
                 const int8_t* queries, const int32_t* corrections, int64_t groups,
                 const float* low, const float* high, Hits& hits);

  void (*multiply)(const ProductTile<float>& tile);
  void (*multiply_pairs)(const ProductTile<Bfloat16x2>& tile);

  // The rest is about rows of cosines, `n` of them, a multiple of 16.
  // products[j] *= row_scale * column_scales[j]
  void (*scale_row)(float* products, const float* column_scales, float row_scale, int64_t n);

  // Adds exp((cosine - largest) / temperature) of all cosines up to the ceiling to a sum that is
  // kept relative to the largest of them.
  void (*sum_row)(const float* cosines, int64_t n, float ceiling, float inverse_temperature,
                  float& largest, float& sum);

  // The same for each of n columns of `rows` rows.
  void (*sum_columns)(const float* cosines, int64_t stride, int64_t rows, int64_t n,
                      const float* ceilings, float inverse_temperature, float* largest,
                      float* sums);

  // Replaces the cosines of each level by the sum over this and all higher levels of
  // weight * row_scale * column_scale: what the columns of this level weigh in the gradient.
  void (*weigh_row)(PairRow& row, int64_t n);

  // Rounds two rows of weights to bfloat16, in pairs of neighbours in a row and in pairs of
  // neighbours in a column. Where there is no second row, it counts as zeros in the latter.
  void (*round_rows)(const float* first, const float* second, int64_t n, Bfloat16x2* of_first,
                     Bfloat16x2* of_second, Bfloat16x2* of_columns);
};

// The best set that this processor has, or the one named by the environment variable SSRA_ISA
// (bf16, vnni, avx2, portable), read at each call. Throws std::invalid_argument where there is no
// such set or the processor lacks it.
const Isa& choose_isa();

// The sets that this processor can run, best first.
std::vector<const Isa*> available_isas();

extern const Isa kIsaPortable;
#if defined(__x86_64__)
extern const Isa kIsaAvx2;
extern const Isa kIsaVnni;
extern const Isa kIsaBf16;
#endif

}  // namespace ssra
