#pragma once

#include <cstdint>
#include <string_view>

namespace facrt {

// How keys and values are stored: 4 bytes a number, 2, or 1 and a float32 scale for each key and each value of a head.
enum class CacheFormat : std::uint32_t { float32 = 0, float16 = 1, int8 = 2 };

// "fp32", "fp16" or "int8"; anything else throws std::invalid_argument.
CacheFormat cache_format_from_name(std::string_view name);

}  // namespace facrt
