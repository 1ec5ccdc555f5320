#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace facrt {

enum class DType { float32, float16, bfloat16 };

// "float32", "float16" or "bfloat16"; anything else throws std::invalid_argument.
DType dtype_from_name(std::string_view name);

constexpr std::size_t itemsize_bytes(DType dtype) {
    return dtype == DType::float32 ? 4 : 2;
}

constexpr float bfloat16_to_float(std::uint16_t bits) {
    return std::bit_cast<float>(std::uint32_t{bits} << 16);
}

// IEEE 754 binary16, subnormals, infinities and NaN included.
constexpr float float16_to_float(std::uint16_t bits) {
    const std::uint32_t sign = (bits & 0x8000u) << 16;
    const float magnitude = std::bit_cast<float>((bits & 0x7fffu) << 13) * 0x1p112f;
    const std::uint32_t special = magnitude >= 65536.0f ? 0x7f800000u : 0u;  // infinity or NaN
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | special | sign);
}

// To the nearest, ties to even; too large becomes infinity.
constexpr std::uint16_t float_to_float16(float value) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);
    if (magnitude >= 0x47800000u) return static_cast<std::uint16_t>(sign | 0x7c00u);
    if (magnitude < 0x38800000u) {  // subnormal: adding 0.5 leaves the rounded multiple of 2^-24 in the low bits
        const std::uint32_t rounded = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5f);
        return static_cast<std::uint16_t>(sign | (rounded - 0x3f000000u));
    }
    const std::uint32_t rounded = magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u);
    return static_cast<std::uint16_t>(sign | (rounded >> 13));
}

}  // namespace facrt
