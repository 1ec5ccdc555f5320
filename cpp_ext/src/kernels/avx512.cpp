#include <immintrin.h>

#include "generic.hpp"

namespace facrt::kernels {
namespace {

// AVX-512 F, BW, VL, VNNI.
struct Avx512 {
    using F = __m512;
    using I = __m512i;
    using B = __m512i;
    using Block = Avx512;
    static constexpr std::size_t width = 16;
    static constexpr int block_rows = 8;
    static constexpr int chain_rows = 0;
    static constexpr int num_sums = 16;

    static F zero() { return _mm512_setzero_ps(); }
    static F broadcast(float x) { return _mm512_set1_ps(x); }
    static F load(const float* p) { return _mm512_loadu_ps(p); }
    static void store(float* p, F x) { _mm512_storeu_ps(p, x); }
    static F add(F a, F b) { return _mm512_add_ps(a, b); }
    static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
    static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
    static F div(F a, F b) { return _mm512_div_ps(a, b); }
    static F max(F a, F b) { return _mm512_max_ps(a, b); }
    static F min(F a, F b) { return _mm512_min_ps(a, b); }
    static F abs(F a) { return _mm512_abs_ps(a); }
    static std::uint32_t at_least(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }  // a bit for each lane
    static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
    static float reduce_add(F a) { return _mm512_reduce_add_ps(a); }
    static float reduce_max(F a) { return _mm512_reduce_max_ps(a); }
    static F two_to_the(F shifted) {
        const I biased = _mm512_add_epi32(_mm512_castps_si512(shifted), _mm512_set1_epi32(127 - 0x4b400000));
        return _mm512_castsi512_ps(_mm512_slli_epi32(biased, 23));
    }

    static F load_half(const std::byte* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
    static B load_bytes(const std::byte* p) { return _mm512_loadu_si512(p); }
    static F bfloat_even(B b) { return _mm512_castsi512_ps(_mm512_slli_epi32(b, 16)); }
    static F bfloat_odd(B b) {
        return _mm512_castsi512_ps(_mm512_and_si512(b, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
    }
    static B low_halves(B b) { return _mm512_and_si512(b, _mm512_set1_epi8(15)); }
    static B high_halves(B b) { return _mm512_and_si512(_mm512_srli_epi16(b, 4), _mm512_set1_epi8(15)); }

    static I broadcast_int(std::int32_t x) { return _mm512_set1_epi32(x); }
    static F to_float(I a) { return _mm512_cvtepi32_ps(a); }
    static I start_int8(std::int32_t sum) { return _mm512_set1_epi32(-128 * sum); }
    static I dot_int8(I sum, B w, std::int32_t x) { return _mm512_dpbusd_epi32(sum, w, _mm512_set1_epi32(x)); }
    static I start_uint4(std::int32_t start) { return broadcast_int(start); }
    static I dot_uint4(I sum, B w, std::int32_t x) { return dot_int8(sum, w, x); }
    static I finish_uint4(I sum, std::int32_t) { return sum; }
    static I add_bytes(I sum, B b) { return _mm512_add_epi32(sum, b); }
    static void keep(B& b) { asm volatile("" : "+v"(b)); }
    static std::int32_t store_int8(std::int8_t* p, F x) {
        const I rounded = _mm512_cvtps_epi32(x);
        _mm_storeu_si128((__m128i*)p, _mm512_cvtsepi32_epi8(rounded));
        return _mm512_reduce_add_epi32(rounded);
    }
};

}  // namespace

extern const Kernels avx512;
constinit const Kernels avx512 = Generic<Avx512>::kernels("avx512");

}  // namespace facrt::kernels
