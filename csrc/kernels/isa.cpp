#include "kernels/isa.h"

#include <cstdlib>
#include <string>
#include <string_view>

#include "support/check.h"

namespace ssra {

namespace {

bool runs_here(const Isa& isa) {
#if defined(__x86_64__)
  const bool has_vnni = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma");
  if (&isa == &kIsaBf16)
    return has_vnni && __builtin_cpu_supports("avx512bf16");
  if (&isa == &kIsaVnni)
    return has_vnni;
  if (&isa == &kIsaAvx2)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return &isa == &kIsaPortable;
}

}  // namespace

std::vector<const Isa*> available_isas() {
  std::vector<const Isa*> available;
#if defined(__x86_64__)
  for (const Isa* isa : {&kIsaBf16, &kIsaVnni, &kIsaAvx2})
    if (runs_here(*isa))
      available.push_back(isa);
#endif
  available.push_back(&kIsaPortable);
  return available;
}

const Isa& choose_isa() {
  const auto available = available_isas();
  const char* forced = std::getenv("SSRA_ISA");
  if (forced == nullptr || *forced == '\0')
    return *available.front();
  for (const Isa* isa : available)
    if (std::string_view(isa->name) == forced)
      return *isa;
  std::string names;
  for (const Isa* isa : available)
    names.append(names.empty() ? "" : ", ").append(isa->name);
  require(false, "SSRA_ISA is '", forced, "'; this processor has: ", names);
  return kIsaPortable;
}

}  // namespace ssra
