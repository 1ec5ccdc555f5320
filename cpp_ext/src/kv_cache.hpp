#pragma once

#include <cstdint>

#include "activations.hpp"
#include "facrt/cache_format.hpp"
#include "facrt/decoder_weights.hpp"

namespace facrt {

// Keys and values of every layer, in tiles that the matrix kernels read: queries times keys, and weights times
// values, are then products with a PackedMatrix.
//   keys of a head:   [capacity / 16] tiles of 16 positions x head_dim columns
//   values of a head: [head_dim / 16, rounded up] tiles of 16 dimensions x capacity columns
// int8: a key's scale is its row's in the tile; a value's scale is its column's, so it lies apart, to be multiplied
// into the weights.
class KvCache {
  public:
    KvCache(const DecoderDims& dims, std::size_t num_positions, CacheFormat cache_format);

    const WeightFormat format;  // fp32, fp16 or int8

    std::size_t capacity() const { return capacity_; }
    std::size_t num_value_tiles() const { return num_value_tiles_; }

    const std::byte* key_tile(std::size_t layer, std::size_t head, std::size_t tile) const {
        return keys_.data() + (head_index(layer, head) * (capacity_ / 16) + tile) * key_tile_bytes_;
    }
    const std::byte* value_tile(std::size_t layer, std::size_t head, std::size_t tile) const {
        return values_.data() + (head_index(layer, head) * num_value_tiles_ + tile) * value_tile_bytes_;
    }
    // [capacity], int8 only
    const float* value_scales(std::size_t layer, std::size_t head) const {
        return value_scales_.data() + head_index(layer, head) * capacity_;
    }

    std::size_t bytes_per_position() const;  // all layers and heads

    // key, value: [head_dim]
    void write(std::size_t layer, std::size_t head, std::size_t position, const float* key, const float* value);

    // Makes the value at `position` zero, where there is room for one: float kernels read pairs of positions.
    void clear_value(std::size_t layer, std::size_t head, std::size_t position);

  private:
    std::size_t head_index(std::size_t layer, std::size_t head) const { return layer * num_heads_ + head; }
    template <class Item, class Convert>
    void write_items(std::byte* keys, std::byte* values, std::size_t position, const float* key, const float* value,
                     Convert convert);
    void write_int8(std::byte* keys, std::byte* values, float* value_scale, std::size_t position, const float* key,
                    const float* value);

    std::size_t num_layers_;
    std::size_t num_heads_;
    std::size_t head_dim_;
    std::size_t num_value_tiles_;
    std::size_t capacity_;  // sub-positions, a multiple of 32
    std::size_t key_tile_bytes_;
    std::size_t value_tile_bytes_;
    ZeroedBuffer<std::byte> keys_;
    ZeroedBuffer<std::byte> values_;
    ZeroedBuffer<float> value_scales_;  // [layers, heads, capacity], int8 only
};

}  // namespace facrt
