#include "kernels/pool.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

namespace ssra {

namespace {

constexpr size_t kBins = 256;

// The lower bounds that count, one after the other.
size_t collect_lowers(std::span<const Waiting> waiting, float least, float limit, float* lowers) {
  size_t count = 0;
  for (const Waiting& candidate : waiting) {
    lowers[count] = candidate.lower;
    count += static_cast<size_t>((candidate.lower >= least) & (candidate.upper <= limit));
  }
  return count;
}

}  // namespace

// A histogram instead of a selection: its loops have no branches to mispredict, and the answer need
// not be the greatest, only valid.
float reached_by(size_t wanted, std::span<const Waiting> waiting, float least, float limit) {
  thread_local std::vector<float> lowers;  // kept for the next call
  thread_local std::vector<uint16_t> bins;
  lowers.resize(waiting.size() + 1);
  const size_t count = collect_lowers(waiting, least, limit, lowers.data());
  if (count < wanted)
    return least;
  lowers.resize(count);
  float from = lowers[0];
  float to = lowers[0];
  for (size_t i = 1; i < count; ++i) {
    from = std::min(from, lowers[i]);
    to = std::max(to, lowers[i]);
  }
  const float range = to - from;
  if (!(range > 0) || !std::isfinite(kBins / range))
    return from;

  const float scale = (kBins - 1) / range;
  bins.resize(count);
  for (size_t i = 0; i < count; ++i)
    bins[i] = static_cast<uint16_t>((lowers[i] - from) * scale);
  std::array<uint32_t, kBins> sizes{};
  for (size_t i = 0; i < count; ++i)
    ++sizes[bins[i]];
  size_t above = 0;
  uint16_t edge = kBins;
  while (above < wanted)
    above += sizes[--edge];

  float reached = std::numeric_limits<float>::infinity();
  for (size_t i = 0; i < count; ++i)
    reached = std::min(reached, bins[i] >= edge ? lowers[i] : reached);
  return reached;
}

size_t keep_reaching(float least, std::span<Waiting> waiting) {
  size_t kept = 0;
  for (const Waiting candidate : waiting) {
    waiting[kept] = candidate;
    kept += static_cast<size_t>(candidate.upper >= least);
  }
  return kept;
}

}  // namespace ssra
