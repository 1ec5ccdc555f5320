#include "kv_cache.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

#include "facrt/dtype.hpp"

namespace facrt {
namespace {

constexpr std::size_t row_scales_bytes = kernels::tile_rows * sizeof(float);  // before the integers of a tile

WeightFormat weight_format(CacheFormat format) {
    switch (format) {
        case CacheFormat::float16:
            return WeightFormat::fp16;
        case CacheFormat::int8:
            return WeightFormat::int8;
        case CacheFormat::float32:
            break;
    }
    return WeightFormat::fp32;
}

// cols is a multiple of 32 where the format is int8.
std::size_t tile_bytes(WeightFormat format, std::size_t cols) {
    if (format == WeightFormat::int8) return row_scales_bytes + cols * kernels::tile_rows;
    return cols * kernels::tile_rows * (format == WeightFormat::fp16 ? 2 : 4);
}

float largest_of(const float* x, std::size_t n) {
    float largest = 0.0f;
    for (std::size_t i = 0; i < n; ++i) largest = std::max(largest, std::abs(x[i]));
    return largest;
}

std::byte biased(float x) {
    return static_cast<std::byte>(128 + std::lrint(x));
}

}  // namespace

CacheFormat cache_format_from_name(std::string_view name) {
    if (name == "fp32") return CacheFormat::float32;
    if (name == "fp16") return CacheFormat::float16;
    if (name == "int8") return CacheFormat::int8;
    throw std::invalid_argument("cache \"" + std::string(name) + "\" must be fp32, fp16 or int8");
}

KvCache::KvCache(const DecoderDims& dims, std::size_t num_positions, CacheFormat cache_format)
    : format(weight_format(cache_format)),
      num_layers_(dims.num_layers),
      num_heads_(dims.num_kv_heads),
      head_dim_(dims.head_dim),
      num_value_tiles_(round_up(head_dim_, 16) / 16),
      capacity_(round_up(num_positions, kernels::group_cols)),
      key_tile_bytes_(tile_bytes(format, format == WeightFormat::int8 ? round_up(head_dim_, 32) : head_dim_)),
      value_tile_bytes_(tile_bytes(format, capacity_)),
      keys_(dims.num_layers * num_heads_ * (capacity_ / 16) * key_tile_bytes_),
      values_(dims.num_layers * num_heads_ * num_value_tiles_ * value_tile_bytes_),
      value_scales_(format == WeightFormat::int8 ? dims.num_layers * num_heads_ * capacity_ : 0) {}

std::size_t KvCache::bytes_per_position() const {
    const std::size_t scale_bytes = format == WeightFormat::int8 ? 2 * sizeof(float) : 0;
    const std::size_t item_bytes = format == WeightFormat::int8 ? 1 : format == WeightFormat::fp16 ? 2 : 4;
    return num_layers_ * num_heads_ * (2 * head_dim_ * item_bytes + scale_bytes);
}

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

void KvCache::write_int8(std::byte* keys, std::byte* values, float* value_scale, std::size_t position, const float* key,
                         const float* value) {
    const float key_largest = largest_of(key, head_dim_), value_largest = largest_of(value, head_dim_);
    const float key_scale = key_largest / 127.0f;
    std::memcpy(keys + position % 16 * sizeof(float), &key_scale, sizeof key_scale);
    *value_scale = value_largest / 127.0f;
    const float key_inverse = key_largest > 0.0f ? 127.0f / key_largest : 0.0f;
    const float value_inverse = value_largest > 0.0f ? 127.0f / value_largest : 0.0f;
    keys += row_scales_bytes + position % 16 * 4;
    for (std::size_t d = 0; d < head_dim_; ++d) keys[d / 4 * 64 + d % 4] = biased(key[d] * key_inverse);
    for (std::size_t tile = 0; tile < num_value_tiles_; ++tile) {
        std::byte* start = values + tile * value_tile_bytes_;
        if (position == 0) std::fill_n(reinterpret_cast<float*>(start), kernels::tile_rows, 1.0f);
        std::byte* column = start + row_scales_bytes + position / 4 * 64 + position % 4;
        const std::size_t first = tile * kernels::tile_rows, last = std::min(first + kernels::tile_rows, head_dim_);
        for (std::size_t d = first; d < last; ++d) column[(d - first) * 4] = biased(value[d] * value_inverse);
    }
}

void KvCache::write(std::size_t layer, std::size_t head, std::size_t position, const float* key, const float* value) {
    auto* keys = const_cast<std::byte*>(key_tile(layer, head, position / 16));
    auto* values = const_cast<std::byte*>(value_tile(layer, head, 0));
    if (format == WeightFormat::int8) {
        float* value_scale = value_scales_.data() + head_index(layer, head) * capacity_ + position;
        write_int8(keys, values, value_scale, position, key, value);
    } else if (format == WeightFormat::fp16) {
        write_items<std::uint16_t>(keys, values, position, key, value, float_to_float16);
    } else {
        write_items<float>(keys, values, position, key, value, [](float x) { return x; });
    }
}

void KvCache::clear_value(std::size_t layer, std::size_t head, std::size_t position) {
    if (position >= capacity_ || format == WeightFormat::int8) return;
    const std::size_t row_bytes = value_tile_bytes_ / capacity_;
    auto* values = const_cast<std::byte*>(value_tile(layer, head, 0));
    for (std::size_t tile = 0; tile < num_value_tiles_; ++tile) {
        std::memset(values + tile * value_tile_bytes_ + position * row_bytes, 0, row_bytes);
    }
}

}  // namespace facrt
