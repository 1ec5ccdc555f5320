#pragma once

#include "products.hpp"

namespace facrt::kernels {

// An instruction set: V's 16 lanes for everything; many rows at once by V::Block's lanes, V::block_rows at a time, or
// in floats, where V::chain_rows is not 0, so many rows by V's lanes and one chain after the other.
template <class V>
struct Generic {
    using F = typename V::F;
    using I = typename V::I;
    using B = typename V::B;

    template <class Of>
    static void product(const std::byte* tile, std::size_t cols, const Rows& x, float* y, std::size_t y_stride) {
        using Wide = Products<V>;
        using Block = Products<typename V::Block>;
        std::size_t first = 0;
        if constexpr (V::chain_rows > 0 && Of::is_float) {
            first =
                Wide::template rows<typename Of::template Chains<Wide>, V::chain_rows>(tile, cols, x, 0, y, y_stride);
        }
        first = Block::template rows<typename Of::template In<Block>, V::block_rows>(tile, cols, x, first, y, y_stride);
        if constexpr (V::block_rows > 4) {
            first = Block::template rows<typename Of::template In<Block>, 4>(tile, cols, x, first, y, y_stride);
        }
        first = Wide::template rows<typename Of::template In<Wide>, 2>(tile, cols, x, first, y, y_stride);
        Wide::template rows<typename Of::template In<Wide>, 1>(tile, cols, x, first, y, y_stride);
    }

    struct Fp32 {
        static constexpr bool is_float = true;
        template <class P>
        using In = typename P::template FloatProduct<typename P::Float32>;
        template <class P>
        using Chains = typename P::template FloatChains<typename P::Float32>;
    };
    struct Fp16 {
        static constexpr bool is_float = true;
        template <class P>
        using In = typename P::template FloatProduct<typename P::Float16>;
        template <class P>
        using Chains = typename P::template FloatChains<typename P::Float16>;
    };
    struct Bf16 {
        static constexpr bool is_float = true;
        template <class P>
        using In = typename P::template FloatProduct<typename P::Bfloat16>;
        template <class P>
        using Chains = typename P::template FloatChains<typename P::Bfloat16>;
    };
    struct Int8 {
        static constexpr bool is_float = false;
        template <class P>
        using In = typename P::Int8Product;
    };
    template <std::size_t block>
    struct Int4 {
        static constexpr bool is_float = false;
        template <class P>
        using In = typename P::template Int4Product<block>;
    };

    static void quantize(const float* x, std::size_t n, std::int8_t* q, float* scales, std::int32_t* sums) {
        for (std::size_t g = 0; g < n / group_cols; ++g, x += group_cols, q += group_cols) {
            const F first = V::load(x), second = V::load(x + 16);
            const float largest = V::reduce_max(V::max(V::abs(first), V::abs(second)));
            const F inverse = V::broadcast(largest > 0.0f ? 127.0f / largest : 0.0f);
            scales[g] = largest / 127.0f;
            sums[g] = V::store_int8(q, V::mul(first, inverse)) + V::store_int8(q + 16, V::mul(second, inverse));
        }
    }

    static void rms_norm(const float* x, const float* weight, std::size_t n, float eps, float* y) {
        F squares = V::zero();
        std::size_t i = 0;
        for (; i + 16 <= n; i += 16) {
            const F value = V::load(x + i);
            squares = V::fma(value, value, squares);
        }
        float sum = V::reduce_add(squares);
        for (std::size_t j = i; j < n; ++j) sum += x[j] * x[j];
        const float factor = 1.0f / __builtin_sqrtf(sum / static_cast<float>(n) + eps);
        const F lanes = V::broadcast(factor);
        for (i = 0; i + 16 <= n; i += 16) V::store(y + i, V::mul(V::mul(V::load(x + i), lanes), V::load(weight + i)));
        for (; i < n; ++i) y[i] = x[i] * factor * weight[i];
    }

    // exp(x) for -87 <= x <= 87, to 2 ulp (Cephes' polynomial).
    static F exp(F x) {
        const F magic = V::broadcast(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
        const F shifted = V::fma(x, V::broadcast(1.44269504088896341f), magic);
        const F power = V::sub(shifted, magic);
        F r = V::fma(power, V::broadcast(-0.693359375f), x);
        r = V::fma(power, V::broadcast(2.12194440e-4f), r);
        F p = V::broadcast(1.9875691500e-4f);
        p = V::fma(p, r, V::broadcast(1.3981999507e-3f));
        p = V::fma(p, r, V::broadcast(8.3334519073e-3f));
        p = V::fma(p, r, V::broadcast(4.1665795894e-2f));
        p = V::fma(p, r, V::broadcast(1.6666665459e-1f));
        p = V::fma(p, r, V::broadcast(5.0000001201e-1f));
        p = V::add(V::fma(V::mul(p, r), r, r), V::broadcast(1.0f));
        return V::mul(p, V::two_to_the(shifted));
    }

    static F clamp(F x) { return V::min(V::max(x, V::broadcast(-87.0f)), V::broadcast(87.0f)); }

    static void silu_multiply(float* gate, const float* up) {
        const F x = V::load(gate);
        const F denominator = V::add(V::broadcast(1.0f), exp(clamp(V::sub(V::zero(), x))));
        V::store(gate, V::mul(V::div(x, denominator), V::load(up)));
    }

    static float softmax(float* scores, std::size_t num_visible, std::size_t n, float scale) {
        for (std::size_t i = num_visible; i < n; ++i) scores[i] = -3.0e38f;
        F most = V::load(scores);
        for (std::size_t i = 16; i < n; i += 16) most = V::max(most, V::load(scores + i));
        const F shift = V::broadcast(V::reduce_max(most)), factor = V::broadcast(scale);
        F sum = V::zero();
        for (std::size_t i = 0; i < n; i += 16) {
            const F value = exp(clamp(V::mul(V::sub(V::load(scores + i), shift), factor)));
            V::store(scores + i, value);
            if (i + 16 <= num_visible) sum = V::add(sum, value);
        }
        float total = 0.0f;
        for (std::size_t i = num_visible / 16 * 16; i < num_visible; ++i) total += scores[i];
        for (std::size_t i = num_visible; i < n; ++i) scores[i] = 0.0f;
        return V::reduce_add(sum) + total;
    }

    static float largest_of_finite(const float* x, std::size_t n) {
        F most = V::broadcast(x[0]), zeros = V::zero();
        std::size_t i = 0;
        for (; i + 16 <= n; i += 16) {
            __builtin_prefetch(x + i + 1024);  // measured: a vocabulary does not fit the second-level cache
            const F value = V::load(x + i);
            most = V::max(most, value);
            zeros = V::fma(value, V::zero(), zeros);  // 0 times what is not finite is NaN
        }
        float largest = V::reduce_max(most), zero = V::reduce_add(zeros);
        for (; i < n; ++i) {
            largest = x[i] > largest ? x[i] : largest;
            zero += x[i] * 0.0f;
        }
        return largest + zero;
    }

    static std::size_t find_at_least(const float* x, std::size_t n, float least, std::uint32_t* places) {
        const F limit = V::broadcast(least);
        std::size_t count = 0, i = 0;
        for (; i + 64 <= n; i += 64) {
            std::uint64_t found = 0;
            for (std::size_t j = 0; j < 4; ++j) {
                found |= static_cast<std::uint64_t>(V::at_least(V::load(x + i + 16 * j), limit)) << 16 * j;
            }
            count += write_places(found, static_cast<std::uint32_t>(i), places + count);
        }
        for (; i < n; ++i) {
            places[count] = static_cast<std::uint32_t>(i);
            count += x[i] >= least ? 1 : 0;
        }
        return count;
    }

    // The bits of found as places from `first` on, in steps of four: how many there are can be guessed more often. What
    // is written behind the last one has no meaning.
    static std::size_t write_places(std::uint64_t found, std::uint32_t first, std::uint32_t* places) {
        if (found == ~std::uint64_t{0}) {
            for (std::uint32_t lane = 0; lane < 64; ++lane) places[lane] = first + lane;
            return 64;
        }
        constexpr std::uint64_t never_zero = std::uint64_t{1} << 63;  // of zero nothing could be counted
        const auto count = static_cast<std::size_t>(__builtin_popcountll(found));
        for (std::size_t written = 0; written < count; written += 4) {
            for (std::size_t lane = 0; lane < 4; ++lane, found &= found - 1) {
                places[written + lane] = first + static_cast<std::uint32_t>(__builtin_ctzll(found | never_zero));
            }
        }
        return count;
    }

    static std::uint64_t read_sweep(const std::byte* bytes, std::size_t n) {
        I sums[4] = {V::broadcast_int(0), V::broadcast_int(0), V::broadcast_int(0), V::broadcast_int(0)};
        for (std::size_t i = 0; i < n; i += 256) {
            for (std::size_t j = 0; j < 4; ++j) sums[j] = V::add_bytes(sums[j], V::load_bytes(bytes + i + 64 * j));
        }
        float total = 0.0f;
        for (const I& sum : sums) total += V::reduce_add(V::to_float(sum));
        return static_cast<std::uint64_t>(total < 0.0f ? -total : total);
    }

    // As many independent sums as the registers hold, each with an activation of its own as in a product (equal ones
    // would be multiplied once), 1024 multiply-adds a round.
    static std::int32_t multiply_adds(std::size_t n) {
        using L = typename V::Block;
        constexpr int num_sums = V::num_sums;
        typename L::I sums[num_sums];
        std::int32_t x[num_sums];
        for (int j = 0; j < num_sums; ++j) {
            sums[j] = L::broadcast_int(j);
            x[j] = j;
        }
        alignas(64) std::byte bytes[64] = {};
        bytes[0] = std::byte{129};
        typename L::B w = L::load_bytes(bytes);
        for (std::size_t i = 0; i < n * 1024 / (num_sums * 4 * L::width); ++i) {
            asm volatile("" : : "r"(x) : "memory");
            for (int j = 0; j < num_sums; ++j) sums[j] = L::dot_int8(sums[j], w, x[j]);
            L::keep(w);
        }
        float total = 0.0f;
        for (const auto& sum : sums) total += L::reduce_add(L::to_float(sum));
        return static_cast<std::int32_t>(total * 1e-9f);
    }

    static constexpr Kernels kernels(const char* name) {
        return {name,
                {product<Fp32>, product<Fp16>, product<Bf16>, product<Int8>, product<Int4<32>>, product<Int4<128>>},
                quantize,
                rms_norm,
                silu_multiply,
                softmax,
                largest_of_finite,
                find_at_least,
                read_sweep,
                multiply_adds};
    }
};

}  // namespace facrt::kernels
