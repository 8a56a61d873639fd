// Documents that may still be among the best of a query.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace ssra {

// A document that waits for its exact score, and the bounds of that score.
struct Waiting {
  float lower;
  float upper;
  uint32_t position;
};

// Of those bounds that are at least `least` and belong to scores that are surely at most `limit`:
// one that `wanted` of them reach, near the greatest such. `least` where there are too few.
float reached_by(size_t wanted, std::span<const Waiting> waiting, float least, float limit);

// Moves those whose upper bound is at least `least` to the front, in order; returns how many.
size_t keep_reaching(float least, std::span<Waiting> waiting);

}  // namespace ssra
