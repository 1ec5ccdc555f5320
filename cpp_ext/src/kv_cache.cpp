#include "kv_cache.hpp"

#include <cstring>

#include "facrt/dtype.hpp"

namespace facrt {

void KvCache::put(std::byte* items, std::size_t index, float value) {
    if (format == WeightFormat::fp16) {
        const std::uint16_t half = float_to_float16(value);
        std::memcpy(items + index * sizeof half, &half, sizeof half);
    } else {
        std::memcpy(items + index * sizeof value, &value, sizeof value);
    }
}

void KvCache::write(std::size_t layer, std::size_t head, std::size_t position, const float* key, const float* value) {
    auto* keys = const_cast<std::byte*>(key_tile(layer, head, position / 16));
    auto* values = const_cast<std::byte*>(value_tile(layer, head, 0));
    for (std::size_t d = 0; d < head_dim_; ++d) {
        put(keys, d * 16 + position % 16, key[d]);
        put(values, (d / 16 * capacity_ + position) * 16 + d % 16, value[d]);
    }
}

void KvCache::clear_value(std::size_t layer, std::size_t head, std::size_t position) {
    if (position >= capacity_) return;
    auto* values = const_cast<std::byte*>(value_tile(layer, head, 0));
    for (std::size_t tile = 0; tile < num_value_tiles_; ++tile) {
        std::memset(values + (tile * capacity_ + position) * 16 * item_bytes_, 0, 16 * item_bytes_);
    }
}

}  // namespace facrt
