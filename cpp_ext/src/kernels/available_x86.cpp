#include <cpuid.h>
#include <immintrin.h>

#include "kernels.hpp"

namespace facrt::kernels {

extern const Kernels avx2;
extern const Kernels avx512;
extern const Kernels avxvnni;

namespace {

// Asked for after AVX2, so the operating system keeps the registers. GCC 12 has no name for it.
bool has_avxvnni() {
    unsigned int a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a & 1u << 4) != 0;
}

}  // namespace

const Kernels* const* available() {
    static const Kernels* list[5] = {};
    static const bool listed = [] {
        __builtin_cpu_init();
        const Kernels** next = list;
        const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
        const bool has_avx2 =
            __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
        if (has_avx512) *next++ = &avx512;
        if (has_avx2 && has_avxvnni()) *next++ = &avxvnni;
        if (has_avx2) *next++ = &avx2;
        *next = &portable;
        return true;
    }();
    static_cast<void>(listed);
    return list;
}

void relax() {
    _mm_pause();
}

}  // namespace facrt::kernels
