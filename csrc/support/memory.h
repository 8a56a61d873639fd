// Memory for kernels.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace ssra {

constexpr std::align_val_t kCacheLine{64};

struct FreeBytes {
  void operator()(uint8_t* bytes) const { ::operator delete[](bytes, kCacheLine); }
};

// Bytes that begin a cache line; what they hold is undefined until written.
using Bytes = std::unique_ptr<uint8_t[], FreeBytes>;

inline Bytes allocate_bytes(int64_t size) {
  return Bytes(static_cast<uint8_t*>(::operator new[](static_cast<size_t>(size), kCacheLine)));
}

}  // namespace ssra
