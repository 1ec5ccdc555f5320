#include "generic.hpp"

namespace facrt::kernels {
namespace {

struct Floats {
    float lane[16];
};
struct Ints {
    std::int32_t lane[16];
};
struct Bytes {
    std::uint8_t lane[64];
};

// Plain C++, for the compiler to vectorise.
struct Portable {
    using F = Floats;
    using I = Ints;
    using B = Bytes;
    using Block = Portable;
    static constexpr std::size_t width = 16;
    static constexpr int block_rows = 2;
    static constexpr int chain_rows = 0;
    static constexpr int num_sums = 2;

    template <class Function>
    static F each(Function function) {
        F result;
        for (int i = 0; i < 16; ++i) result.lane[i] = function(i);
        return result;
    }

    static F zero() { return broadcast(0.0f); }
    static F broadcast(float x) {
        return each([&](int) { return x; });
    }
    static F load(const float* p) { return load_as<F>(p); }
    static void store(float* p, const F& x) { __builtin_memcpy(p, &x, sizeof x); }
    static F add(const F& a, const F& b) {
        return each([&](int i) { return a.lane[i] + b.lane[i]; });
    }
    static F sub(const F& a, const F& b) {
        return each([&](int i) { return a.lane[i] - b.lane[i]; });
    }
    static F mul(const F& a, const F& b) {
        return each([&](int i) { return a.lane[i] * b.lane[i]; });
    }
    static F div(const F& a, const F& b) {
        return each([&](int i) { return a.lane[i] / b.lane[i]; });
    }
    static F max(const F& a, const F& b) {
        return each([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
    }
    static F min(const F& a, const F& b) {
        return each([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
    }
    static F abs(const F& a) {
        return each([&](int i) { return a.lane[i] < 0.0f ? -a.lane[i] : a.lane[i]; });
    }
    static std::uint32_t at_least(const F& a, const F& b) {  // a bit for each lane
        std::uint32_t bits = 0;
        for (int i = 0; i < 16; ++i) bits |= static_cast<std::uint32_t>(a.lane[i] >= b.lane[i]) << i;
        return bits;
    }
    static F fma(const F& a, const F& b, const F& c) {
        return each([&](int i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
    }
    static float reduce_add(F a) {
        for (int width = 8; width > 0; width /= 2) {
            for (int i = 0; i < width; ++i) a.lane[i] += a.lane[i + width];
        }
        return a.lane[0];
    }
    static float reduce_max(const F& a) {
        float most = a.lane[0];
        for (const float x : a.lane) most = x > most ? x : most;
        return most;
    }
    static F two_to_the(const F& shifted) {
        return each([&](int i) {
            const auto bits = load_as<std::uint32_t>(&shifted.lane[i]) - 0x4b400000u + 127u;
            const std::uint32_t power = bits << 23;
            return load_as<float>(&power);
        });
    }

    static float half(std::uint16_t bits) {
        const std::uint32_t sign = (bits & 0x8000u) << 16;
        const std::uint32_t unscaled = (bits & 0x7fffu) << 13;
        const float magnitude = load_as<float>(&unscaled) * 0x1p112f;
        const std::uint32_t special = magnitude >= 65536.0f ? 0x7f800000u : 0u;  // infinity or NaN
        const std::uint32_t result = load_as<std::uint32_t>(&magnitude) | special | sign;
        return load_as<float>(&result);
    }
    static F load_half(const std::byte* p) {
        return each([&](int i) { return half(load_as<std::uint16_t>(p + 2 * i)); });
    }
    static B load_bytes(const std::byte* p) { return load_as<B>(p); }
    static std::uint32_t word(const B& b, int i) { return load_as<std::uint32_t>(b.lane + 4 * i); }
    static F bfloat_even(const B& b) {
        return each([&](int i) {
            const std::uint32_t bits = word(b, i) << 16;
            return load_as<float>(&bits);
        });
    }
    static F bfloat_odd(const B& b) {
        return each([&](int i) {
            const std::uint32_t bits = word(b, i) & 0xffff0000u;
            return load_as<float>(&bits);
        });
    }
    static B low_halves(B b) {
        for (auto& x : b.lane) x = static_cast<std::uint8_t>(x & 15);
        return b;
    }
    static B high_halves(B b) {
        for (auto& x : b.lane) x = static_cast<std::uint8_t>(x >> 4);
        return b;
    }

    static I broadcast_int(std::int32_t x) {
        I result;
        for (auto& lane : result.lane) lane = x;
        return result;
    }
    static F to_float(const I& a) {
        return each([&](int i) { return static_cast<float>(a.lane[i]); });
    }
    static I start_int8(std::int32_t sum) { return broadcast_int(-128 * sum); }
    static I dot_int8(I sum, const B& w, std::int32_t x) {
        std::int16_t quad[4];
        for (int j = 0; j < 4; ++j) quad[j] = static_cast<std::int8_t>(static_cast<std::uint32_t>(x) >> (8 * j));
        for (int i = 0; i < 16; ++i) {
            for (int j = 0; j < 4; ++j) sum.lane[i] += w.lane[4 * i + j] * quad[j];
        }
        return sum;
    }
    static I start_uint4(std::int32_t start) { return broadcast_int(start); }
    static I dot_uint4(const I& sum, const B& w, std::int32_t x) { return dot_int8(sum, w, x); }
    static I finish_uint4(const I& sum, std::int32_t) { return sum; }
    static I add_bytes(I sum, const B& b) {
        for (int i = 0; i < 16; ++i) {
            sum.lane[i] = static_cast<std::int32_t>(static_cast<std::uint32_t>(sum.lane[i]) + word(b, i));
        }
        return sum;
    }
    static void keep(B& b) { asm volatile("" : : "r"(&b) : "memory"); }
    static std::int32_t store_int8(std::int8_t* p, const F& x) {
        std::int32_t sum = 0;
        for (int i = 0; i < 16; ++i) {
            const float shifted = x.lane[i] + 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
            const auto rounded = static_cast<std::int32_t>(load_as<std::uint32_t>(&shifted) - 0x4b400000u);
            p[i] = static_cast<std::int8_t>(rounded);
            sum += rounded;
        }
        return sum;
    }
};

}  // namespace

constinit const Kernels portable = Generic<Portable>::kernels("portable");

}  // namespace facrt::kernels
