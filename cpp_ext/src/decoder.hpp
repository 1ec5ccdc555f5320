#pragma once

#include <algorithm>

#include "activations.hpp"
#include "facrt/decoder_weights.hpp"
#include "facrt/thread_pool.hpp"
#include "kv_cache.hpp"

namespace facrt {

// A transformer decoder with its cache: rows of hidden_size in, rows of hidden_size out.
class Decoder {
  public:
    Decoder(const DecoderWeights& weights, const kernels::Kernels& kernels, ThreadPool& pool, std::size_t max_rows,
            std::size_t capacity, CacheFormat cache);

    Activations x;  // [max_rows, hidden_size], input and output; the output is not yet normed

    // Runs the first num_rows of x as the next positions.
    void forward(std::size_t num_rows);

    std::size_t length() const { return length_; }
    std::size_t cache_bytes_per_position() const { return cache_.bytes_per_position(); }
    void truncate(std::size_t length) { length_ = std::min(length_, length); }

    // y[row][tile * 16 ..] = (matrix times each row of in); done(tile, y, y_stride) follows each tile at once.
    template <class Done>
    void multiply(const PackedMatrix& matrix, const kernels::Rows& in, Activations& y, Done done) {
        const auto product = kernels_.products[static_cast<std::size_t>(matrix.format)];
        const std::size_t tile_bytes = matrix.tile_bytes(), cols = matrix.padded_cols();
        pool_.run(matrix.num_tiles(), grain(tile_bytes, in.num_rows), [&](std::size_t tile, std::size_t) {
            float* out = y.row(0) + tile * kernels::tile_rows;
            product(matrix.data + tile * tile_bytes, cols, in, out, y.stride());
            done(tile, out, y.stride());
        });
    }

    void quantize(Activations& rows, std::size_t num_rows);

  private:
    static std::size_t grain(std::size_t tile_bytes, std::size_t num_rows) {
        constexpr std::size_t turn_bytes = 32768;  // about a microsecond of reading: dear enough to claim
        return num_rows > 1 ? 1 : std::max<std::size_t>(1, turn_bytes / tile_bytes);
    }

    void norm(const float* weight, std::size_t num_rows);
    void add_product(const PackedMatrix& matrix, std::span<const float> bias, const Activations& rows,
                     std::size_t num_rows);
    void swiglu(const DecoderLayer& layer, std::size_t num_rows);
    void rotary_angles(std::size_t num_rows);
    void attention(std::size_t layer, std::size_t num_rows);
    void enter_cache(std::size_t layer, std::size_t head, std::size_t row, std::size_t num_rows);
    void attend(std::size_t layer, std::size_t head, std::size_t first, std::size_t last, std::size_t num_rows,
                std::size_t thread);
    void norm_and_rotate(const float* in, const float* weight, std::size_t row, float* out) const;

    const DecoderWeights& weights_;
    const DecoderDims dims_;
    const kernels::Kernels& kernels_;
    ThreadPool& pool_;
    KvCache cache_;
    std::size_t length_ = 0;  // positions in the cache
    std::size_t heads_per_kv_;
    std::size_t rows_per_turn_;                // of queries, in attention
    Activations normed_;                       // [max_rows, hidden_size]
    Activations qkv_;                          // [max_rows, (num_heads + 2 num_kv_heads) head_dim]
    Activations attended_;                     // [max_rows, num_heads head_dim]
    Activations gated_;                        // [max_rows, intermediate_size]
    Activations product_;                      // [max_rows, max(hidden_size, intermediate_size)] scratch
    Activations queries_;                      // [num_kv_heads * num_rows * heads_per_kv, head_dim], rotated
    ZeroedBuffer<float> rotation_;             // [max_rows, head_dim / 2] cosines, then sines
    ZeroedBuffer<float> inverse_frequencies_;  // [head_dim / 2]
    Activations scores_;                       // per thread [rows_per_turn * heads_per_kv, capacity]
    ZeroedBuffer<float> mixed_;                // per thread [rows_per_turn * heads_per_kv, 16]
    std::size_t max_rows_;
};

}  // namespace facrt
