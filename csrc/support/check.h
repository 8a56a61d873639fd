// Two kinds of wrong: a caller's mistake throws, with a message for the person who made it (the
// bindings turn it into ValueError); a mistake of ours is an assert.
#pragma once

#include <cassert>
#include <sstream>
#include <stdexcept>

namespace ssra {

// Throws std::invalid_argument with the parts joined, unless `holds`.
template <class... Parts>
void require(bool holds, const Parts&... parts) {
  if (holds) [[likely]]
    return;
  std::ostringstream message;
  (message << ... << parts);
  throw std::invalid_argument(message.str());
}

}  // namespace ssra
