// Loops over several threads.
#pragma once

#include <cstdint>
#include <functional>

namespace ssra {

// Calls `body(i)` for every i in [0, count), on up to `threads` threads, the caller's among them.
// Which thread runs which i is not defined; a body must write only what belongs to its i. The first
// exception is rethrown once all threads have stopped.
//
// Threads live as long as the call. Starting one costs some 20 microseconds, a kernel runs for
// milliseconds at least, and no pool is left behind for a forked child to inherit broken.
void parallel_for(int64_t count, int threads, const std::function<void(int64_t)>& body);

}  // namespace ssra
