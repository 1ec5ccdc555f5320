#include "../src/kernels/avxvnni_lanes.hpp"
#include "emulated.hpp"

namespace facrt::kernels {
namespace {

struct Emulated {
    // Exact, unlike AVX2's own byte products, which saturate at 16 bits.
    static __m256i dpbusd(__m256i sum, __m256i w, __m256i x) {
        const __m256i even_w = _mm256_and_si256(w, _mm256_set1_epi16(255)), odd_w = _mm256_srli_epi16(w, 8);
        const __m256i even_x = _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8), odd_x = _mm256_srai_epi16(x, 8);
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(even_w, even_x));
        return _mm256_add_epi32(sum, _mm256_madd_epi16(odd_w, odd_x));
    }
};

constinit const Kernels avxvnni_emulated = Generic<AvxVnni<Emulated>>::kernels("avxvnni, emulated");

}  // namespace
}  // namespace facrt::kernels

std::vector<const facrt::kernels::Kernels*> emulated_kernels() {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("f16c")) return {};
    return {&facrt::kernels::avxvnni_emulated};
}
