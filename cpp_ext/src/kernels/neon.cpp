#include <arm_neon.h>

#include "generic.hpp"

namespace facrt::kernels {
namespace {

template <class Register>
struct Four {
    Register part[4];
};

// AArch64 with the dot product extension.
struct Neon {
    using F = Four<float32x4_t>;
    using I = Four<int32x4_t>;
    using B = Four<uint8x16_t>;
    static constexpr int most_rows = 2;

    template <class Result, class Function>
    static Result each(Function function) {
        return {{function(0), function(1), function(2), function(3)}};
    }

    static F zero() { return broadcast(0.0f); }
    static F broadcast(float x) {
        return each<F>([&](int) { return vdupq_n_f32(x); });
    }
    static F load(const float* p) {
        return each<F>([&](int i) { return vld1q_f32(p + 4 * i); });
    }
    static void store(float* p, const F& x) {
        for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, x.part[i]);
    }
    static F add(const F& a, const F& b) {
        return each<F>([&](int i) { return vaddq_f32(a.part[i], b.part[i]); });
    }
    static F sub(const F& a, const F& b) {
        return each<F>([&](int i) { return vsubq_f32(a.part[i], b.part[i]); });
    }
    static F mul(const F& a, const F& b) {
        return each<F>([&](int i) { return vmulq_f32(a.part[i], b.part[i]); });
    }
    static F div(const F& a, const F& b) {
        return each<F>([&](int i) { return vdivq_f32(a.part[i], b.part[i]); });
    }
    static F max(const F& a, const F& b) {
        return each<F>([&](int i) { return vmaxq_f32(a.part[i], b.part[i]); });
    }
    static F min(const F& a, const F& b) {
        return each<F>([&](int i) { return vminq_f32(a.part[i], b.part[i]); });
    }
    static F abs(const F& a) {
        return each<F>([&](int i) { return vabsq_f32(a.part[i]); });
    }
    static F fma(const F& a, const F& b, const F& c) {
        return each<F>([&](int i) { return vfmaq_f32(c.part[i], a.part[i], b.part[i]); });
    }
    static float reduce_add(const F& a) {
        return vaddvq_f32(vaddq_f32(vaddq_f32(a.part[0], a.part[1]), vaddq_f32(a.part[2], a.part[3])));
    }
    static float reduce_max(const F& a) {
        return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.part[0], a.part[1]), vmaxq_f32(a.part[2], a.part[3])));
    }
    static F two_to_the(const F& shifted) {
        const int32x4_t bias = vdupq_n_s32(127 - 0x4b400000);
        return each<F>([&](int i) {
            return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vreinterpretq_s32_f32(shifted.part[i]), bias), 23));
        });
    }

    static F load_half(const std::byte* p) {
        return each<F>([&](int i) {
            return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(reinterpret_cast<const std::uint8_t*>(p) + 8 * i)));
        });
    }
    static B load_bytes(const std::byte* p) {
        return each<B>([&](int i) { return vld1q_u8(reinterpret_cast<const std::uint8_t*>(p) + 16 * i); });
    }
    static F bfloat_even(const B& b) {
        return each<F>([&](int i) { return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_u8(b.part[i]), 16)); });
    }
    static F bfloat_odd(const B& b) {
        const uint32x4_t mask = vdupq_n_u32(0xffff0000u);
        return each<F>([&](int i) { return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_u8(b.part[i]), mask)); });
    }
    static B low_halves(const B& b) {
        return each<B>([&](int i) { return vandq_u8(b.part[i], vdupq_n_u8(15)); });
    }
    static B high_halves(const B& b) {
        return each<B>([&](int i) { return vshrq_n_u8(b.part[i], 4); });
    }

    static I broadcast_int(std::int32_t x) {
        return each<I>([&](int) { return vdupq_n_s32(x); });
    }
    static F to_float(const I& a) {
        return each<F>([&](int i) { return vcvtq_f32_s32(a.part[i]); });
    }
    static I start_int8(std::int32_t) { return broadcast_int(0); }
    static I dot_int8(const I& sum, const B& w, std::int32_t x) {
        const int8x16_t lanes = vreinterpretq_s8_s32(vdupq_n_s32(x));
        const uint8x16_t bias = vdupq_n_u8(128);
        return each<I>(
            [&](int i) { return vdotq_s32(sum.part[i], vreinterpretq_s8_u8(veorq_u8(w.part[i], bias)), lanes); });
    }
    static I dot_uint4(const I& sum, const B& w, std::int32_t x) {
        const int8x16_t lanes = vreinterpretq_s8_s32(vdupq_n_s32(x));
        return each<I>([&](int i) { return vdotq_s32(sum.part[i], vreinterpretq_s8_u8(w.part[i]), lanes); });
    }
    static I add_bytes(const I& sum, const B& b) {
        return each<I>([&](int i) { return vaddq_s32(sum.part[i], vreinterpretq_s32_u8(b.part[i])); });
    }
    static void keep(B& b) { asm volatile("" : "+w"(b.part[0]), "+w"(b.part[1]), "+w"(b.part[2]), "+w"(b.part[3])); }
    static std::int32_t store_int8(std::int8_t* p, const F& x) {
        const I rounded = each<I>([&](int i) { return vcvtnq_s32_f32(x.part[i]); });
        const int16x8_t low = vcombine_s16(vqmovn_s32(rounded.part[0]), vqmovn_s32(rounded.part[1]));
        const int16x8_t high = vcombine_s16(vqmovn_s32(rounded.part[2]), vqmovn_s32(rounded.part[3]));
        vst1q_s8(p, vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
        return vaddvq_s32(
            vaddq_s32(vaddq_s32(rounded.part[0], rounded.part[1]), vaddq_s32(rounded.part[2], rounded.part[3])));
    }
};

}  // namespace

extern const Kernels neon;
constinit const Kernels neon = Generic<Neon>::kernels("neon");

}  // namespace facrt::kernels
