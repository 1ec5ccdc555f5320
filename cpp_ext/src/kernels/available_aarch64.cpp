#include <asm/hwcap.h>
#include <sys/auxv.h>

#include "kernels.hpp"

namespace facrt::kernels {

extern const Kernels neon;
extern const Kernels neon_i8mm;

const Kernels* const* available() {
    static const Kernels* const all[] = {&neon_i8mm, &neon, &portable, nullptr};
    const bool has_dot_product = (::getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
    const bool has_i8mm = (::getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
    return !has_dot_product ? all + 2 : !has_i8mm ? all + 1 : all;
}

void relax() {
    asm volatile("yield");
}

}  // namespace facrt::kernels
