#include "emulation.h"

#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

namespace ssra::cuda {

namespace {

constexpr size_t kStack = 64 * 1024;
constexpr size_t kGuard = 64 * 1024;
constexpr unsigned char kFresh = 0xFF;  // as float NaN, as an integer -1

const std::string kReturned = "its end";

struct Fiber {
  ucontext_t context;
  std::vector<char> stack = std::vector<char>(kStack);
  std::string stopped_at;
};

// The fibers of the block at hand; stacks are used again by the next.
std::vector<Fiber> fibers;
ucontext_t scheduler;
EmulatedBlock* block = nullptr;
const std::function<void(EmulatedBlock&)>* body = nullptr;

void stop(const std::string& where) {
  Fiber& fiber = fibers[static_cast<size_t>(block->thread())];
  fiber.stopped_at = where;
  swapcontext(&fiber.context, &scheduler);
}

void run_fiber() {
  (*body)(*block);
  stop(kReturned);
}

void start(Fiber& fiber) {
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.data();
  fiber.context.uc_stack.ss_size = fiber.stack.size();
  fiber.context.uc_link = nullptr;
  fiber.stopped_at.clear();
  makecontext(&fiber.context, run_fiber, 0);
}

void arrange(std::vector<int>& threads, std::mt19937_64& draw) {
  if (emulation().order == 1)
    std::reverse(threads.begin(), threads.end());
  else if (emulation().order > 1)
    std::shuffle(threads.begin(), threads.end(), draw);
}

void run_to_the_end(int threads) {
  std::mt19937_64 draw(emulation().order);
  while (true) {
    std::vector<int> turn(static_cast<size_t>(threads));
    std::iota(turn.begin(), turn.end(), 0);
    arrange(turn, draw);
    for (const int thread : turn) {
      block->enter(thread);
      swapcontext(&scheduler, &fibers[static_cast<size_t>(thread)].context);
    }
    const std::string& first = fibers[0].stopped_at;
    for (int thread = 1; thread < threads; ++thread) {
      const std::string& other = fibers[static_cast<size_t>(thread)].stopped_at;
      if (other != first)
        throw std::logic_error("thread 0 is at " + first + ", thread " + std::to_string(thread) +
                               " at " + other);
    }
    if (first == kReturned)
      return;
  }
}

}  // namespace

Emulation& emulation() {
  static Emulation settings;
  return settings;
}

void EmulatedBlock::barrier(std::source_location site) {
  const std::string name = std::filesystem::path(site.file_name()).filename().string() + ":" +
                           std::to_string(site.line());
  emulation().barriers.insert(name);
  if (name != emulation().skipped)
    stop(name);
}

void run_block(const std::function<void(EmulatedBlock&)>& kernel, int threads, int64_t x, int64_t y,
               size_t shared_bytes) {
  std::vector<unsigned char> memory(kGuard + shared_bytes + kGuard, kFresh);
  EmulatedBlock current(threads, x, y, memory.data() + kGuard);
  block = &current;
  body = &kernel;
  fibers.resize(std::max(fibers.size(), static_cast<size_t>(threads)));
  for (int thread = 0; thread < threads; ++thread)
    start(fibers[static_cast<size_t>(thread)]);
  run_to_the_end(threads);
  const auto fresh = [](unsigned char byte) { return byte == kFresh; };
  if (!std::all_of(memory.begin(), memory.begin() + kGuard, fresh) ||
      !std::all_of(memory.end() - kGuard, memory.end(), fresh))
    throw std::logic_error("a thread wrote beside its shared memory");
}

}  // namespace ssra::cuda
