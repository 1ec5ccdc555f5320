#pragma once

#include <immintrin.h>

#include "paired.hpp"

namespace facrt::kernels {
namespace {

// Eight lanes of AVX2, FMA, F16C. Each file has its own copy, compiled with its own flags.
struct Avx2Lanes {
    using F = __m256;
    using I = __m256i;
    using B = __m256i;
    static constexpr std::size_t width = 8;

    static F zero() { return _mm256_setzero_ps(); }
    static F broadcast(float x) { return _mm256_set1_ps(x); }
    static F load(const float* p) { return _mm256_loadu_ps(p); }
    static void store(float* p, F x) { _mm256_storeu_ps(p, x); }
    static F add(F x, F y) { return _mm256_add_ps(x, y); }
    static F sub(F x, F y) { return _mm256_sub_ps(x, y); }
    static F mul(F x, F y) { return _mm256_mul_ps(x, y); }
    static F div(F x, F y) { return _mm256_div_ps(x, y); }
    static F max(F x, F y) { return _mm256_max_ps(x, y); }
    static F min(F x, F y) { return _mm256_min_ps(x, y); }
    static F abs(F x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
    static std::uint32_t at_least(F x, F y) {  // a bit for each lane
        return static_cast<std::uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(x, y, _CMP_GE_OQ)));
    }
    static F fma(F x, F y, F z) { return _mm256_fmadd_ps(x, y, z); }
    static float reduce_add(F x) {
        __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        four = _mm_add_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_add_ss(four, _mm_shuffle_ps(four, four, 1)));
    }
    static float reduce_max(F x) {
        __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
        four = _mm_max_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_max_ss(four, _mm_shuffle_ps(four, four, 1)));
    }
    static F two_to_the(F shifted) {
        const __m256i bias = _mm256_set1_epi32(127 - 0x4b400000);
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_castps_si256(shifted), bias), 23));
    }

    static F load_half(const std::byte* p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }
    static B load_bytes(const std::byte* p) { return _mm256_loadu_si256((const __m256i*)p); }
    static F bfloat_even(B x) { return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16)); }
    static F bfloat_odd(B x) {
        return _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
    }
    static B low_halves(B x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
    static B high_halves(B x) { return low_halves(_mm256_srli_epi16(x, 4)); }

    static I broadcast_int(std::int32_t x) { return _mm256_set1_epi32(x); }
    static F to_float(I x) { return _mm256_cvtepi32_ps(x); }
    static I start_int8(std::int32_t) { return _mm256_setzero_si256(); }
    // |w| times x with w's sign: pairs stay within 2 * 127 * 127, so the 16-bit sums do not saturate.
    static I dot_int8(I sum, B w, std::int32_t x) {
        const __m256i signed_w = without_bias(w), signed_x = _mm256_sign_epi8(_mm256_set1_epi32(x), signed_w);
        return add_pairs(sum, _mm256_maddubs_epi16(_mm256_abs_epi8(signed_w), signed_x));
    }
    static B without_bias(B w) { return _mm256_xor_si256(w, _mm256_set1_epi8(-128)); }
    // A group's 16 products of a 16-bit lane stay within 16 * 15 * 127, so they are widened once, at its end.
    static I start_uint4(std::int32_t) { return _mm256_setzero_si256(); }
    static I dot_uint4(I sum, B w, std::int32_t x) {
        return _mm256_add_epi16(sum, _mm256_maddubs_epi16(w, _mm256_set1_epi32(x)));
    }
    static I finish_uint4(I sum, std::int32_t start) { return add_pairs(broadcast_int(start), sum); }
    static I add_pairs(I sum, __m256i pairs) {
        return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    static I add_bytes(I sum, B x) { return _mm256_add_epi32(sum, x); }
    static void keep(B& x) { asm volatile("" : "+x"(x)); }
    static std::int32_t store_int8(std::int8_t* p, F x) {
        const __m256i rounded = _mm256_cvtps_epi32(x);
        const __m128i low = _mm256_castsi256_si128(rounded), high = _mm256_extracti128_si256(rounded, 1);
        const __m128i shorts = _mm_packs_epi32(low, high);
        _mm_storel_epi64((__m128i*)p, _mm_packs_epi16(shorts, shorts));
        __m128i four = _mm_add_epi32(low, high);
        four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
        return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
    }
};

}  // namespace
}  // namespace facrt::kernels
