#pragma once

#include <cstdint>

#include "activations.hpp"
#include "facrt/speech_head_file.hpp"

namespace facrt {

// Keys and values of every layer, in tiles that the matrix kernels read: queries times keys, and weights times
// values, are then products with a PackedMatrix.
//   keys of a head:   [capacity / 16][head_dim][16 positions]
//   values of a head: [head_dim / 16, rounded up][capacity][16 dimensions]
class KvCache {
  public:
    KvCache(const SpeechHeadDims& dims, std::size_t num_positions, bool half)
        : format(half ? WeightFormat::fp16 : WeightFormat::fp32),
          num_heads_(dims.num_kv_heads),
          head_dim_(dims.head_dim),
          num_value_tiles_(round_up(head_dim_, 16) / 16),
          capacity_(round_up(num_positions, 16)),
          item_bytes_(half ? 2 : 4),
          keys_(dims.num_layers * num_heads_ * key_items() * item_bytes_),
          values_(dims.num_layers * num_heads_ * value_items() * item_bytes_) {}

    const WeightFormat format;

    std::size_t capacity() const { return capacity_; }
    std::size_t num_value_tiles() const { return num_value_tiles_; }

    const std::byte* key_tile(std::size_t layer, std::size_t head, std::size_t tile) const {
        return keys_.data() + ((layer * num_heads_ + head) * key_items() + tile * head_dim_ * 16) * item_bytes_;
    }
    const std::byte* value_tile(std::size_t layer, std::size_t head, std::size_t tile) const {
        return values_.data() + ((layer * num_heads_ + head) * value_items() + tile * capacity_ * 16) * item_bytes_;
    }

    // key, value: [head_dim]
    void write(std::size_t layer, std::size_t head, std::size_t position, const float* key, const float* value);

    // Makes the value at `position` zero, where there is room for one: kernels read pairs of positions.
    void clear_value(std::size_t layer, std::size_t head, std::size_t position);

  private:
    std::size_t key_items() const { return capacity_ * head_dim_; }
    std::size_t value_items() const { return capacity_ * num_value_tiles_ * 16; }
    template <class Item, class Convert>
    void write_items(std::byte* keys, std::byte* values, std::size_t position, const float* key, const float* value,
                     Convert convert);

    std::size_t num_heads_;
    std::size_t head_dim_;
    std::size_t num_value_tiles_;
    std::size_t capacity_;  // sub-positions, a multiple of 16
    std::size_t item_bytes_;
    ZeroedBuffer<std::byte> keys_;
    ZeroedBuffer<std::byte> values_;
};

}  // namespace facrt
