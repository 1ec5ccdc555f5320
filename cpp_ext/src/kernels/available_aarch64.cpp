#include <asm/hwcap.h>
#include <sys/auxv.h>

#include "kernels.hpp"

namespace facrt::kernels {

extern const Kernels neon;

const Kernels* const* available() {
    static const Kernels* const all[] = {&neon, &portable, nullptr};
    return (::getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0 ? all : all + 1;
}

void relax() {
    asm volatile("yield");
}

}  // namespace facrt::kernels
