#include "kernels/loss.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "kernels/contrast.h"
#include "support/check.h"
#include "support/parallel.h"

namespace ssra {

namespace {

template <class Factor>
class GradedInfoNce {
 public:
  explicit GradedInfoNce(const LossArguments& arguments)
      : arguments_(arguments),
        isa_(choose_isa()),
        strips_(strips_of(arguments.dims)),
        queries_({arguments.queries}, arguments.dims, arguments.self_contrast, arguments.threads),
        candidates_({arguments.positives, arguments.negatives}, arguments.dims, true,
                    arguments.threads),
        anchors_(arguments.queries.rows, static_cast<int64_t>(arguments.dims.size())) {
    meet_positives();
  }

  LossResult run(const Matrix<float>& query_gradient, const Matrix<float>& candidate_gradient) {
    // The sums of a row must be whole before anything can be weighed; cosines among candidates
    // concern positives only, which are the first of them.
    if (arguments_.self_contrast) {
      add_symmetric_sums(queries_);
      add_symmetric_sums(candidates_);
    }
    const Contrast<Factor> contrast = pair_up(queries_, candidates_, Pairs::kCandidates);
    for (int64_t row = 0; row < queries_.count(); row += ContrastBlock<Factor>::kRows) {
      ContrastBlock<Factor> block(contrast, row);
      block.add_to_sums();
      finish_sums(row, std::min(queries_.count(), row + ContrastBlock<Factor>::kRows));
      if (arguments_.gradients)
        dots_ += block.add_gradients(query_gradient, candidate_gradient);
    }
    if (arguments_.gradients && arguments_.self_contrast) {
      add_symmetric_gradients(queries_, query_gradient);
      add_symmetric_gradients(candidates_, candidate_gradient);
    }
    if (arguments_.gradients) {
      queries_.subtract_projections(strips_, arguments_.threads, query_gradient);
      candidates_.subtract_projections(strips_, arguments_.threads, candidate_gradient);
    }
    return {loss_, -dots_ / arguments_.temperature};
  }

 private:
  Contrast<Factor> pair_up(PackedVectors<Factor>& rows, PackedVectors<Factor>& columns,
                           Pairs pairs) {
    return {.isa = isa_,
            .anchors = anchors_,
            .rows = rows,
            .columns = columns,
            .dims = arguments_.dims,
            .strips = strips_,
            .pairs = pairs,
            .column_count = pairs == Pairs::kSymmetric ? anchors_.count() : columns.count(),
            .inverse_temperature = static_cast<float>(1 / arguments_.temperature),
            .threads = arguments_.threads,
            .workspace = workspace_};
  }

  void add_symmetric_sums(PackedVectors<Factor>& vectors) {
    const Contrast<Factor> contrast = pair_up(vectors, vectors, Pairs::kSymmetric);
    for (int64_t row = 0; row < anchors_.count(); row += ContrastBlock<Factor>::kRows)
      ContrastBlock<Factor>(contrast, row).add_to_sums();
  }

  void add_symmetric_gradients(PackedVectors<Factor>& vectors, const Matrix<float>& gradient) {
    const Contrast<Factor> contrast = pair_up(vectors, vectors, Pairs::kSymmetric);
    for (int64_t row = 0; row < anchors_.count(); row += ContrastBlock<Factor>::kRows)
      dots_ += ContrastBlock<Factor>(contrast, row).add_gradients(gradient, gradient);
  }

  // The positives' cosines, which everything else is measured by, in double.
  void meet_positives() {
    const int64_t levels = anchors_.levels();
    for (int64_t i = 0; i < anchors_.count(); ++i) {
      const float* query = arguments_.queries.row(i);
      const float* positive = arguments_.positives.row(i);
      double product = 0;
      int64_t j = 0;
      for (int64_t level = 0; level < levels; ++level) {
        for (; j < arguments_.dims[static_cast<size_t>(level)]; ++j)
          product += static_cast<double>(query[j]) * static_cast<double>(positive[j]);
        const double cosine = product * static_cast<double>(queries_.scales(level)[i]) *
                              static_cast<double>(candidates_.scales(level)[i]);
        anchors_.positives(level)[i] = static_cast<float>(cosine);
        anchors_.ceilings(level)[i] = static_cast<float>(cosine + arguments_.false_negative_margin);
        anchors_.largest(level)[i] = static_cast<float>(cosine);
      }
    }
  }

  // With all of its terms known, an anchor has its loss, and its pairs have their weights.
  void finish_sums(int64_t begin, int64_t end) {
    const double temperature = arguments_.temperature;
    const double mean = 1.0 / static_cast<double>(anchors_.count() * anchors_.levels());
    for (int64_t i = begin; i < end; ++i) {
      const double grade = mean * static_cast<double>(arguments_.grades[static_cast<size_t>(i)]);
      for (int64_t level = 0; level < anchors_.levels(); ++level) {
        const auto others = static_cast<double>(anchors_.others(level)[i]);
        const double ahead = (static_cast<double>(anchors_.largest(level)[i]) -
                              static_cast<double>(anchors_.positives(level)[i])) /
                             temperature;
        const double positive = std::exp(-ahead);
        const double sum = others + positive;
        loss_ += grade * (ahead > 0 ? ahead + std::log(sum) : std::log1p(others));
        anchors_.shares(level)[i] = static_cast<float>(grade / temperature / sum);
        anchors_.pulls(level)[i] = static_cast<float>(-grade / temperature * others / sum);
      }
    }
  }

  const LossArguments& arguments_;
  const Isa& isa_;
  std::vector<Strip> strips_;
  PackedVectors<Factor> queries_;
  PackedVectors<Factor> candidates_;
  Anchors anchors_;
  Workspace<Factor> workspace_;
  double loss_ = 0;
  double dots_ = 0;
};

void require_consistent(const LossArguments& arguments) {
  const Matrix<const float>& queries = arguments.queries;
  const Matrix<const float>& positives = arguments.positives;
  const Matrix<const float>& negatives = arguments.negatives;
  require(positives.rows == queries.rows && positives.cols == queries.cols, "queries are [",
          queries.rows, ", ", queries.cols, "], positives are [", positives.rows, ", ",
          positives.cols, "]");
  require(negatives.rows == 0 || negatives.cols == queries.cols, "queries have ", queries.cols,
          " columns, negatives have ", negatives.cols);
  require(static_cast<int64_t>(arguments.grades.size()) == queries.rows,
          "grades: expected one for each of ", queries.rows, " queries, got ",
          arguments.grades.size());
  const auto levels = static_cast<int64_t>(arguments.dims.size());
  require(levels >= 1 && levels <= kMostLevels, "dims: expected 1 to ", kMostLevels, ", got ",
          levels);
  int64_t before = 0;
  for (const int64_t dim : arguments.dims) {
    require(dim > before && dim <= queries.cols, "dims: ", dim, " does not lie within ", before + 1,
            " and ", queries.cols);
    before = dim;
  }
  require(std::isfinite(arguments.temperature) && arguments.temperature > 0, "temperature is ",
          arguments.temperature, ", it must be above 0");
  require(!std::isnan(arguments.false_negative_margin), "false_negative_margin is NaN");
  require(arguments.threads >= 1, "threads is ", arguments.threads, ", it must be at least 1");
  require_usable(queries, "queries");
  require_usable(positives, "positives");
  require_usable(negatives, "negatives");
}

}  // namespace

LossResult graded_infonce(const LossArguments& arguments, const Matrix<float>& query_gradient,
                          const Matrix<float>& candidate_gradient) {
  require_consistent(arguments);
  if (arguments.queries.rows == 0)
    return {};
  if (arguments.products == Products::kBfloat16)
    return GradedInfoNce<Bfloat16x2>(arguments).run(query_gradient, candidate_gradient);
  return GradedInfoNce<float>(arguments).run(query_gradient, candidate_gradient);
}

}  // namespace ssra
