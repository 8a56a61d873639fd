// Loops whose counters are constants, so that the arrays they index stay in registers.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

namespace ssra {
namespace {

template <class Body, int64_t... i>
[[gnu::always_inline]] inline void each_of(std::integer_sequence<int64_t, i...>, const Body& body) {
  (body(std::integral_constant<int64_t, i>()), ...);
}

// Calls body(0) to body(count - 1).
template <int64_t count, class Body>
[[gnu::always_inline]] inline void each(const Body& body) {
  each_of(std::make_integer_sequence<int64_t, count>(), body);
}

}  // namespace
}  // namespace ssra
