#include "neon_lanes.hpp"

namespace facrt::kernels {
namespace {

// AArch64 with the 8-bit matrix multiply extension: unsigned weights as they lie, and 2 x 8 times 8 x 2 products.
struct I8mmLanes : NeonLanes {
    static I start_int8(std::int32_t sum) { return vdupq_n_s32(-128 * sum); }
    static I dot_int8(I sum, B w, std::int32_t x) { return vusdotq_s32(sum, w, quad(x)); }
};

using Eight = Paired<I8mmLanes>;
using Four = QuantizedRows<4>;

struct I8mm : Paired<Eight> {
    using Block = Eight;
    static constexpr int block_rows = 4;
    static constexpr int chain_rows = 0;
    static constexpr int num_sums = 8;
};

int8x16_t two_rows(const std::int8_t* first, const std::int8_t* second) {
    return vcombine_s8(vld1_s8(first), vld1_s8(second));
}

// Eight rows of weights times four of activations, as 2 x 2 products: lanes of [w][x] are (2w, 2x), (2w, 2x+1),
// (2w+1, 2x), (2w+1, 2x+1).
struct Squares {
    int32x4_t sums[4][2];

    explicit Squares(std::int32_t minus_bias, const Four& in, std::size_t g) {
        for (int x = 0; x < 2; ++x) {
            const int32x2_t pair = {minus_bias * in.sums[2 * x][g], minus_bias * in.sums[2 * x + 1][g]};
            for (auto& row : sums) row[x] = vcombine_s32(pair, pair);
        }
    }

    // first, second: columns k .. k+3 and k+4 .. k+7.
    void add(const Eight::B& first, const Eight::B& second, const Four& in, std::size_t k) {
        const int8x16_t x[2] = {two_rows(in.q[0] + k, in.q[1] + k), two_rows(in.q[2] + k, in.q[3] + k)};
        const uint8x16_t w[4] = {low(first.a, second.a), high(first.a, second.a), low(first.b, second.b),
                                 high(first.b, second.b)};
        for (int i = 0; i < 4; ++i) {
            for (int j = 0; j < 2; ++j) sums[i][j] = vusmmlaq_s32(sums[i][j], w[i], x[j]);
        }
    }

    void store(Eight::I* sum) const {
        for (int j = 0; j < 2; ++j) {
            sum[2 * j] = {vuzp1q_s32(sums[0][j], sums[1][j]), vuzp1q_s32(sums[2][j], sums[3][j])};
            sum[2 * j + 1] = {vuzp2q_s32(sums[0][j], sums[1][j]), vuzp2q_s32(sums[2][j], sums[3][j])};
        }
    }

  private:
    static uint8x16_t low(uint8x16_t a, uint8x16_t b) {
        return vreinterpretq_u8_u32(vzip1q_u32(vreinterpretq_u32_u8(a), vreinterpretq_u32_u8(b)));
    }
    static uint8x16_t high(uint8x16_t a, uint8x16_t b) {
        return vreinterpretq_u8_u32(vzip2q_u32(vreinterpretq_u32_u8(a), vreinterpretq_u32_u8(b)));
    }
};

}  // namespace

template <>
template <>
void Products<Eight>::sum_int8<4>(const std::byte* w, const Four& in, std::size_t g, Eight::I* sum) {
    Squares squares(-128, in, g);
    for (std::size_t k = g * group_cols; k < (g + 1) * group_cols; k += 8, w += 128) {
        squares.add(Eight::load_bytes(w), Eight::load_bytes(w + 64), in, k);
    }
    squares.store(sum);
}

template <>
template <>
void Products<Eight>::sum_int4<4>(const std::byte* w, const Four& in, std::size_t g, Eight::I* sum) {
    Squares squares(-8, in, g);
    for (std::size_t k = g * group_cols; k < (g + 1) * group_cols; k += 8, w += 64) {
        const Eight::B bytes = Eight::load_bytes(w);
        squares.add(Eight::low_halves(bytes), Eight::high_halves(bytes), in, k);
    }
    squares.store(sum);
}

extern const Kernels neon_i8mm;
constinit const Kernels neon_i8mm = Generic<I8mm>::kernels("neon_i8mm");

}  // namespace facrt::kernels
