#pragma once

#include <arm_neon.h>

#include "paired.hpp"

namespace facrt::kernels {
namespace {

// Four lanes of AArch64 with the dot product extension. Each file has its own copy, compiled with its own flags.
struct NeonLanes {
    using F = float32x4_t;
    using I = int32x4_t;
    using B = uint8x16_t;
    static constexpr std::size_t width = 4;

    static F zero() { return vdupq_n_f32(0.0f); }
    static F broadcast(float x) { return vdupq_n_f32(x); }
    static F load(const float* p) { return vld1q_f32(p); }
    static void store(float* p, F x) { vst1q_f32(p, x); }
    static F add(F a, F b) { return vaddq_f32(a, b); }
    static F sub(F a, F b) { return vsubq_f32(a, b); }
    static F mul(F a, F b) { return vmulq_f32(a, b); }
    static F div(F a, F b) { return vdivq_f32(a, b); }
    static F max(F a, F b) { return vmaxq_f32(a, b); }
    static F min(F a, F b) { return vminq_f32(a, b); }
    static F abs(F a) { return vabsq_f32(a); }
    static std::uint32_t at_least(F a, F b) {  // a bit for each lane
        const uint32x4_t bits = {1, 2, 4, 8};
        return vaddvq_u32(vandq_u32(vcgeq_f32(a, b), bits));
    }
    static F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
    static float reduce_add(F a) { return vaddvq_f32(a); }
    static float reduce_max(F a) { return vmaxvq_f32(a); }
    static F two_to_the(F shifted) {
        const int32x4_t bias = vdupq_n_s32(127 - 0x4b400000);
        return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vreinterpretq_s32_f32(shifted), bias), 23));
    }

    static const std::uint8_t* bytes_at(const std::byte* p) { return reinterpret_cast<const std::uint8_t*>(p); }
    static F load_half(const std::byte* p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(bytes_at(p)))); }
    static B load_bytes(const std::byte* p) { return vld1q_u8(bytes_at(p)); }
    static F bfloat_even(B b) { return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_u8(b), 16)); }
    static F bfloat_odd(B b) {
        return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_u8(b), vdupq_n_u32(0xffff0000u)));
    }
    static B low_halves(B b) { return vandq_u8(b, vdupq_n_u8(15)); }
    static B high_halves(B b) { return vshrq_n_u8(b, 4); }

    static I broadcast_int(std::int32_t x) { return vdupq_n_s32(x); }
    static F to_float(I a) { return vcvtq_f32_s32(a); }
    static I start_int8(std::int32_t) { return vdupq_n_s32(0); }
    static int8x16_t quad(std::int32_t x) { return vreinterpretq_s8_s32(vdupq_n_s32(x)); }
    static I dot_int8(I sum, B w, std::int32_t x) {
        return vdotq_s32(sum, vreinterpretq_s8_u8(veorq_u8(w, vdupq_n_u8(128))), quad(x));
    }
    static I start_uint4(std::int32_t start) { return broadcast_int(start); }
    static I dot_uint4(I sum, B w, std::int32_t x) { return vdotq_s32(sum, vreinterpretq_s8_u8(w), quad(x)); }
    static I finish_uint4(I sum, std::int32_t) { return sum; }
    static I add_bytes(I sum, B b) { return vaddq_s32(sum, vreinterpretq_s32_u8(b)); }
    static void keep(B& b) { asm volatile("" : "+w"(b)); }
    static std::int32_t store_int8(std::int8_t* p, F x) {
        const I rounded = vcvtnq_s32_f32(x);
        const int16x4_t shorts = vqmovn_s32(rounded);
        const int8x8_t bytes = vqmovn_s16(vcombine_s16(shorts, shorts));
        vst1_lane_s32(reinterpret_cast<std::int32_t*>(p), vreinterpret_s32_s8(bytes), 0);
        return vaddvq_s32(rounded);
    }
};

}  // namespace
}  // namespace facrt::kernels
