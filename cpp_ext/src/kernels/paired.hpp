#pragma once

#include "generic.hpp"

namespace facrt::kernels {

// Twice the lanes of Half, for the kernels of generic.hpp.
template <class Half>
struct Paired {
    template <class Part>
    struct Two {
        Part a, b;
    };
    using F = Two<typename Half::F>;
    using I = Two<typename Half::I>;
    using B = Two<typename Half::B>;
    static constexpr std::size_t width = 2 * Half::width;

    static F zero() { return {Half::zero(), Half::zero()}; }
    static F broadcast(float x) { return {Half::broadcast(x), Half::broadcast(x)}; }
    static F load(const float* p) { return {Half::load(p), Half::load(p + Half::width)}; }
    static void store(float* p, F x) {
        Half::store(p, x.a);
        Half::store(p + Half::width, x.b);
    }
    static F add(F x, F y) { return {Half::add(x.a, y.a), Half::add(x.b, y.b)}; }
    static F sub(F x, F y) { return {Half::sub(x.a, y.a), Half::sub(x.b, y.b)}; }
    static F mul(F x, F y) { return {Half::mul(x.a, y.a), Half::mul(x.b, y.b)}; }
    static F div(F x, F y) { return {Half::div(x.a, y.a), Half::div(x.b, y.b)}; }
    static F max(F x, F y) { return {Half::max(x.a, y.a), Half::max(x.b, y.b)}; }
    static F min(F x, F y) { return {Half::min(x.a, y.a), Half::min(x.b, y.b)}; }
    static F abs(F x) { return {Half::abs(x.a), Half::abs(x.b)}; }
    static std::uint32_t at_least(F x, F y) {
        return Half::at_least(x.a, y.a) | Half::at_least(x.b, y.b) << Half::width;
    }
    static F fma(F x, F y, F z) { return {Half::fma(x.a, y.a, z.a), Half::fma(x.b, y.b, z.b)}; }
    static float reduce_add(F x) { return Half::reduce_add(Half::add(x.a, x.b)); }
    static float reduce_max(F x) { return Half::reduce_max(Half::max(x.a, x.b)); }
    static F two_to_the(F shifted) { return {Half::two_to_the(shifted.a), Half::two_to_the(shifted.b)}; }

    static F load_half(const std::byte* p) { return {Half::load_half(p), Half::load_half(p + 2 * Half::width)}; }
    static B load_bytes(const std::byte* p) { return {Half::load_bytes(p), Half::load_bytes(p + 4 * Half::width)}; }
    static F bfloat_even(B x) { return {Half::bfloat_even(x.a), Half::bfloat_even(x.b)}; }
    static F bfloat_odd(B x) { return {Half::bfloat_odd(x.a), Half::bfloat_odd(x.b)}; }
    static B low_halves(B x) { return {Half::low_halves(x.a), Half::low_halves(x.b)}; }
    static B high_halves(B x) { return {Half::high_halves(x.a), Half::high_halves(x.b)}; }

    static I broadcast_int(std::int32_t x) { return {Half::broadcast_int(x), Half::broadcast_int(x)}; }
    static F to_float(I x) { return {Half::to_float(x.a), Half::to_float(x.b)}; }
    static I start_int8(std::int32_t sum) { return {Half::start_int8(sum), Half::start_int8(sum)}; }
    static I dot_int8(I sum, B w, std::int32_t x) {
        return {Half::dot_int8(sum.a, w.a, x), Half::dot_int8(sum.b, w.b, x)};
    }
    static I start_uint4(std::int32_t start) { return {Half::start_uint4(start), Half::start_uint4(start)}; }
    static I dot_uint4(I sum, B w, std::int32_t x) {
        return {Half::dot_uint4(sum.a, w.a, x), Half::dot_uint4(sum.b, w.b, x)};
    }
    static I finish_uint4(I sum, std::int32_t start) {
        return {Half::finish_uint4(sum.a, start), Half::finish_uint4(sum.b, start)};
    }
    static I add_bytes(I sum, B x) { return {Half::add_bytes(sum.a, x.a), Half::add_bytes(sum.b, x.b)}; }
    static void keep(B& x) {
        Half::keep(x.a);
        Half::keep(x.b);
    }
    static std::int32_t store_int8(std::int8_t* p, F x) {
        return Half::store_int8(p, x.a) + Half::store_int8(p + Half::width, x.b);
    }
};

}  // namespace facrt::kernels
