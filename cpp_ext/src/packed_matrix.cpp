#include "facrt/packed_matrix.hpp"

#include <array>

#include "activations.hpp"

namespace facrt {
namespace {

constexpr std::size_t scales_bytes = 64;  // of a pair of int4 blocks

std::size_t col_padding(WeightFormat format) {
    return format == WeightFormat::int4_128 ? 256 : format == WeightFormat::int4_32 ? 64 : 32;
}

}  // namespace

std::string_view name_of(WeightFormat format) {
    constexpr std::array<std::string_view, 6> names{"fp32", "fp16", "bf16", "int8", "int4_32", "int4_128"};
    return names[static_cast<std::size_t>(format)];
}

std::size_t PackedMatrix::num_tiles() const {
    return round_up(rows, kernels::tile_rows) / kernels::tile_rows;
}

std::size_t PackedMatrix::padded_cols() const {
    return round_up(cols, col_padding(format));
}

std::size_t PackedMatrix::tile_bytes() const {
    const std::size_t items = padded_cols() * kernels::tile_rows;
    switch (format) {
        case WeightFormat::fp32:
            return items * 4;
        case WeightFormat::fp16:
        case WeightFormat::bf16:
            return items * 2;
        case WeightFormat::int8:
            return kernels::tile_rows * sizeof(float) + items;
        case WeightFormat::int4_32:
        case WeightFormat::int4_128:
            break;
    }
    return padded_cols() / col_padding(format) * scales_bytes + items / 2;
}

}  // namespace facrt
