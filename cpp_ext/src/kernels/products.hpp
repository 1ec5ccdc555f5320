#pragma once

#include "kernels.hpp"

// Products of a tile, written once over lanes: L::width floats F, as many int32 I, four times as many bytes B.
namespace facrt::kernels {

namespace {

template <class T>
inline T load_as(const void* source) {
    T value;
    __builtin_memcpy(&value, source, sizeof value);
    return value;
}

template <int num>
struct QuantizedRows {
    const std::int8_t* q[num];
    const float* scales[num];
    const std::int32_t* sums[num];

    QuantizedRows(const Rows& x, std::size_t first) {
        for (int s = 0; s < num; ++s) {
            const std::size_t i = first + static_cast<std::size_t>(s);
            q[s] = x.quantized + i * x.stride;
            scales[s] = x.scales + i * (x.stride / group_cols);
            sums[s] = x.sums + i * (x.stride / group_cols);
        }
    }
};

}  // namespace

// A product of x's rows first .. first+num-1 with lanes part * L::width .. of a tile. Whatever the lanes and num, each
// sum is made in the same order: the results are the same bits.
template <class L>
struct Products {
    using F = typename L::F;
    using I = typename L::I;
    using B = typename L::B;

    static void store(float* y, std::size_t y_stride, std::size_t row, std::size_t part, F value) {
        L::store(y + row * y_stride + part * L::width, value);
    }

    // One or two rows wait for memory: what they need `distance` bytes later is asked for now, since a processor's own
    // prefetching ends with the page. More rows find the tile in the cache. Measured, as are the distances: the fewer
    // instructions a line of the cache takes, the further a processor looks ahead by itself.
    template <int num, std::size_t distance>
    static void fetch_ahead(const std::byte* w) {
        if constexpr (num <= 2 && distance > 0) __builtin_prefetch(w + distance);
    }
    static constexpr std::size_t integers_ahead = 2048;

    // Two chains per row, even and odd columns.
    struct Float32 {
        static constexpr std::size_t pair_bytes = 128, ahead = 0;
        static void pair(const std::byte* w, std::size_t part, F& even, F& odd) {
            const auto* lanes = reinterpret_cast<const float*>(w) + part * L::width;
            even = L::load(lanes);
            odd = L::load(lanes + tile_rows);
        }
    };
    struct Float16 {
        static constexpr std::size_t pair_bytes = 64, ahead = 1024;
        static void pair(const std::byte* w, std::size_t part, F& even, F& odd) {
            even = L::load_half(w + part * 2 * L::width);
            odd = L::load_half(w + part * 2 * L::width + 2 * tile_rows);
        }
    };
    struct Bfloat16 {
        static constexpr std::size_t pair_bytes = 64, ahead = 1024;
        static void pair(const std::byte* w, std::size_t part, F& even, F& odd) {
            const B bytes = L::load_bytes(w + part * 4 * L::width);
            even = L::bfloat_even(bytes);
            odd = L::bfloat_odd(bytes);
        }
    };

    template <class Format>
    struct FloatProduct {
        template <int num>
        static void rows(const std::byte* w, std::size_t part, std::size_t cols, const Rows& x, std::size_t first,
                         float* y, std::size_t y_stride) {
            F even[num], odd[num];
            const float* row[num];
            for (int s = 0; s < num; ++s) {
                even[s] = odd[s] = L::zero();
                row[s] = x.values + (first + static_cast<std::size_t>(s)) * x.stride;
            }
            for (std::size_t k = 0; k < cols; k += 2, w += Format::pair_bytes) {
                fetch_ahead<num, Format::ahead>(w);
                F w_even, w_odd;
                Format::pair(w, part, w_even, w_odd);
                for (int s = 0; s < num; ++s) {
                    even[s] = L::fma(w_even, L::broadcast(row[s][k]), even[s]);
                    odd[s] = L::fma(w_odd, L::broadcast(row[s][k + 1]), odd[s]);
                }
            }
            for (int s = 0; s < num; ++s) {
                store(y, y_stride, first + static_cast<std::size_t>(s), part, L::add(even[s], odd[s]));
            }
        }
    };

    // FloatProduct with one chain after the other, for as many rows as leave no registers for both.
    template <class Format>
    struct FloatChains {
        template <int num>
        static void rows(const std::byte* w, std::size_t part, std::size_t cols, const Rows& x, std::size_t first,
                         float* y, std::size_t y_stride) {
            F even[num], odd[num];
            chain<num, 0>(w, part, cols, x, first, even);
            chain<num, 1>(w, part, cols, x, first, odd);
            for (int s = 0; s < num; ++s) {
                store(y, y_stride, first + static_cast<std::size_t>(s), part, L::add(even[s], odd[s]));
            }
        }

        // total = the products of the even columns, or of the odd ones.
        template <int num, int which>
        static void chain(const std::byte* w, std::size_t part, std::size_t cols, const Rows& x, std::size_t first,
                          F* total) {
            F sum[num];
            const float* row[num];
            for (int s = 0; s < num; ++s) {
                sum[s] = L::zero();
                row[s] = x.values + (first + static_cast<std::size_t>(s)) * x.stride + which;
            }
            for (std::size_t k = 0; k < cols; k += 2, w += Format::pair_bytes) {
                F weights[2];
                Format::pair(w, part, weights[0], weights[1]);
                for (int s = 0; s < num; ++s) sum[s] = L::fma(weights[which], L::broadcast(row[s][k]), sum[s]);
            }
            for (int s = 0; s < num; ++s) total[s] = sum[s];
        }
    };

    // sum = the integer products of group g: 32 columns, whose weights begin at w.
    template <int num>
    static void sum_int8(const std::byte* w, const QuantizedRows<num>& in, std::size_t g, I* sum) {
        for (int s = 0; s < num; ++s) sum[s] = L::start_int8(in.sums[s][g]);
        for (std::size_t k = g * group_cols; k < (g + 1) * group_cols; k += 4, w += 64) {
            const B bytes = L::load_bytes(w);
            fetch_ahead<num, integers_ahead>(w);
            for (int s = 0; s < num; ++s) {
                sum[s] = L::dot_int8(sum[s], bytes, load_as<std::int32_t>(in.q[s] + k));
            }
        }
    }

    template <int num>
    static void sum_int4(const std::byte* w, const QuantizedRows<num>& in, std::size_t g, I* sum) {
        for (int s = 0; s < num; ++s) sum[s] = L::start_uint4(-8 * in.sums[s][g]);
        for (std::size_t k = g * group_cols; k < (g + 1) * group_cols; k += 8, w += 64) {
            const B bytes = L::load_bytes(w);
            fetch_ahead<num, integers_ahead>(w);
            const B low = L::low_halves(bytes), high = L::high_halves(bytes);
            for (int s = 0; s < num; ++s) {
                sum[s] = L::dot_uint4(sum[s], low, load_as<std::int32_t>(in.q[s] + k));
                sum[s] = L::dot_uint4(sum[s], high, load_as<std::int32_t>(in.q[s] + k + 4));
            }
        }
        for (int s = 0; s < num; ++s) sum[s] = L::finish_uint4(sum[s], -8 * in.sums[s][g]);
    }

    template <int num>
    static void add_scaled(const I* sum, const QuantizedRows<num>& in, std::size_t g, F* total) {
        for (int s = 0; s < num; ++s) {
            total[s] = L::fma(L::to_float(sum[s]), L::broadcast(in.scales[s][g]), total[s]);
        }
    }

    struct Int8Product {
        template <int num>
        static void rows(const std::byte* tile, std::size_t part, std::size_t cols, const Rows& x, std::size_t first,
                         float* y, std::size_t y_stride) {
            const QuantizedRows<num> in(x, first);
            const std::byte* w = tile + tile_rows * sizeof(float) + part * 4 * L::width;
            F total[num];
            for (int s = 0; s < num; ++s) total[s] = L::zero();
            for (std::size_t g = 0; g < cols / group_cols; ++g, w += 16 * group_cols) {
                I sum[num];
                sum_int8<num>(w, in, g, sum);
                add_scaled<num>(sum, in, g, total);
            }
            const F scale = L::load(reinterpret_cast<const float*>(tile) + part * L::width);
            for (int s = 0; s < num; ++s) {
                store(y, y_stride, first + static_cast<std::size_t>(s), part, L::mul(total[s], scale));
            }
        }
    };

    template <std::size_t block>
    struct Int4Product {
        template <int num>
        static void rows(const std::byte* tile, std::size_t part, std::size_t cols, const Rows& x, std::size_t first,
                         float* y, std::size_t y_stride) {
            const QuantizedRows<num> in(x, first);
            const std::byte* w = tile;
            F total[num];
            for (int s = 0; s < num; ++s) total[s] = L::zero();
            std::size_t g = 0;
            for (std::size_t pair = 0; pair < cols / (2 * block); ++pair) {
                const std::byte* scales = w + part * 2 * L::width;
                w += 64;
                for (std::size_t b = 0; b < 2; ++b) {
                    F of_block[num];
                    for (int s = 0; s < num; ++s) of_block[s] = L::zero();
                    for (std::size_t i = 0; i < block / group_cols; ++i, ++g, w += 8 * group_cols) {
                        I sum[num];
                        sum_int4<num>(w + part * 4 * L::width, in, g, sum);
                        add_scaled<num>(sum, in, g, of_block);
                    }
                    const F scale = L::load_half(scales + b * 2 * tile_rows);
                    for (int s = 0; s < num; ++s) total[s] = L::fma(of_block[s], scale, total[s]);
                }
            }
            for (int s = 0; s < num; ++s) store(y, y_stride, first + static_cast<std::size_t>(s), part, total[s]);
        }
    };

    // As many rows at once as `num` allows; returns the first row that is left.
    template <class Product, int num>
    static std::size_t rows(const std::byte* tile, std::size_t cols, const Rows& x, std::size_t first, float* y,
                            std::size_t y_stride) {
        for (; x.num_rows - first >= num; first += num) {
            for (std::size_t part = 0; part < tile_rows / L::width; ++part) {
                Product::template rows<num>(tile, part, cols, x, first, y, y_stride);
            }
        }
        return first;
    }
};

}  // namespace facrt::kernels
