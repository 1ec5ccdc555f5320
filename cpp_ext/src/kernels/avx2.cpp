#include <immintrin.h>

#include "generic.hpp"

namespace facrt::kernels {
namespace {

template <class Register>
struct Two {
    Register a, b;
};

// AVX2, FMA, F16C.
struct Avx2 {
    using F = Two<__m256>;
    using I = Two<__m256i>;
    using B = Two<__m256i>;
    static constexpr int most_rows = 2;

    static F zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
    static F broadcast(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
    static F load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
    static void store(float* p, F x) {
        _mm256_storeu_ps(p, x.a);
        _mm256_storeu_ps(p + 8, x.b);
    }
    static F add(F x, F y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
    static F sub(F x, F y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
    static F mul(F x, F y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
    static F div(F x, F y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
    static F max(F x, F y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
    static F min(F x, F y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
    static F abs(F x) {
        const __m256 sign = _mm256_set1_ps(-0.0f);
        return {_mm256_andnot_ps(sign, x.a), _mm256_andnot_ps(sign, x.b)};
    }
    static F fma(F x, F y, F z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
    static float reduce_add(F x) {
        const __m256 eight = _mm256_add_ps(x.a, x.b);
        __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
        four = _mm_add_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_add_ss(four, _mm_shuffle_ps(four, four, 1)));
    }
    static float reduce_max(F x) {
        const __m256 eight = _mm256_max_ps(x.a, x.b);
        __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
        four = _mm_max_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_max_ss(four, _mm_shuffle_ps(four, four, 1)));
    }
    static F two_to_the(F shifted) {
        const __m256i bias = _mm256_set1_epi32(127 - 0x4b400000);
        const auto power = [&](__m256 x) {
            return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_castps_si256(x), bias), 23));
        };
        return {power(shifted.a), power(shifted.b)};
    }

    static F load_half(const std::byte* p) {
        return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)),
                _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(p + 16)))};
    }
    static B load_bytes(const std::byte* p) {
        return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)(p + 32))};
    }
    static F bfloat_even(B x) {
        return {_mm256_castsi256_ps(_mm256_slli_epi32(x.a, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(x.b, 16))};
    }
    static F bfloat_odd(B x) {
        const __m256i mask = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
        return {_mm256_castsi256_ps(_mm256_and_si256(x.a, mask)), _mm256_castsi256_ps(_mm256_and_si256(x.b, mask))};
    }
    static B low_halves(B x) {
        const __m256i mask = _mm256_set1_epi8(15);
        return {_mm256_and_si256(x.a, mask), _mm256_and_si256(x.b, mask)};
    }
    static B high_halves(B x) { return low_halves({_mm256_srli_epi16(x.a, 4), _mm256_srli_epi16(x.b, 4)}); }

    static I broadcast_int(std::int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
    static F to_float(I x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
    static I start_int8(std::int32_t) { return broadcast_int(0); }
    // |w| times x with w's sign: pairs stay within 2 * 127 * 127, so the 16-bit sums do not saturate.
    static __m256i dot_signed(__m256i sum, __m256i w, __m256i x) {
        w = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
        const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
        return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
    static I dot_int8(I sum, B w, std::int32_t x) {
        const __m256i lanes = _mm256_set1_epi32(x);
        return {dot_signed(sum.a, w.a, lanes), dot_signed(sum.b, w.b, lanes)};
    }
    static I dot_uint4(I sum, B w, std::int32_t x) {
        const __m256i lanes = _mm256_set1_epi32(x), ones = _mm256_set1_epi16(1);
        const auto dot = [&](__m256i bytes) { return _mm256_madd_epi16(_mm256_maddubs_epi16(bytes, lanes), ones); };
        return {_mm256_add_epi32(sum.a, dot(w.a)), _mm256_add_epi32(sum.b, dot(w.b))};
    }
    static I add_bytes(I sum, B x) { return {_mm256_add_epi32(sum.a, x.a), _mm256_add_epi32(sum.b, x.b)}; }
    static void keep(B& x) { asm volatile("" : "+x"(x.a), "+x"(x.b)); }
    static std::int32_t store_int8(std::int8_t* p, F x) {
        const __m256i first = _mm256_cvtps_epi32(x.a), second = _mm256_cvtps_epi32(x.b);
        const __m256i shorts = _mm256_permute4x64_epi64(_mm256_packs_epi32(first, second), 0xd8);
        const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(shorts), _mm256_extracti128_si256(shorts, 1));
        _mm_storeu_si128((__m128i*)p, bytes);
        const __m256i eight = _mm256_add_epi32(first, second);
        __m128i four = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
        four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
        return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
    }
};

}  // namespace

extern const Kernels avx2;
constinit const Kernels avx2 = Generic<Avx2>::kernels("avx2");

}  // namespace facrt::kernels
