#include "kv_cache.hpp"

#include <cstring>

#include "facrt/dtype.hpp"

namespace facrt {

template <class Item, class Convert>
void KvCache::write_items(std::byte* keys, std::byte* values, std::size_t position, const float* key,
                          const float* value, Convert convert) {
    for (std::size_t d = 0; d < head_dim_; ++d) {
        const Item item = convert(key[d]);
        std::memcpy(keys + (d * 16 + position % 16) * sizeof item, &item, sizeof item);
    }
    for (std::size_t d = 0; d < head_dim_; ++d) {
        const Item item = convert(value[d]);
        std::memcpy(values + ((d / 16 * capacity_ + position) * 16 + d % 16) * sizeof item, &item, sizeof item);
    }
}

void KvCache::write(std::size_t layer, std::size_t head, std::size_t position, const float* key, const float* value) {
    auto* keys = const_cast<std::byte*>(key_tile(layer, head, position / 16));
    auto* values = const_cast<std::byte*>(value_tile(layer, head, 0));
    if (format == WeightFormat::fp16) {
        write_items<std::uint16_t>(keys, values, position, key, value, float_to_float16);
    } else {
        write_items<float>(keys, values, position, key, value, [](float x) { return x; });
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
