#include <immintrin.h>

#include "kernels.hpp"

namespace facrt::kernels {

extern const Kernels avx2;
extern const Kernels avx512;

const Kernels* const* available() {
    static const Kernels* list[4] = {};
    static const bool listed = [] {
        __builtin_cpu_init();
        const Kernels** next = list;
        const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
        const bool has_avx2 =
            __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
        if (has_avx512) *next++ = &avx512;
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
