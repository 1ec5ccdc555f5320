#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace facrt {

// How the matrices of a weight file are stored.
enum class WeightFormat : std::uint32_t { fp32 = 0, fp16 = 1, bf16 = 2, int8 = 3, int4_32 = 4, int4_128 = 5 };

std::string_view name_of(WeightFormat format);

// A matrix [rows, cols] in tiles of 16 rows, each tile contiguous, so that a kernel needs no horizontal sum.
// Rows are padded to 16 and columns to 32 (int4_B: 2 B), with zeros. A kernel reads a tile front to back.
//   fp32, fp16: [cols][16 rows]
//   bf16:       [cols / 2][16 rows][2]
//   int8:       16 float32 row scales (largest |w| / 127), then [cols / 4][16 rows][4] bytes of 128 + q,
//               -127 <= q <= 127
//   int4_B:     per 2 B columns: [2][16 rows] float16 scales of the two blocks of B, then [2 B / 8][16 rows][4] bytes;
//               byte j holds 8 + q of column j in its low half and of column 4 + j in its high half
struct PackedMatrix {
    WeightFormat format = WeightFormat::fp32;
    std::size_t rows = 0;
    std::size_t cols = 0;
    const std::byte* data = nullptr;  // [num_tiles(), tile_bytes()]

    std::size_t num_tiles() const;
    std::size_t padded_cols() const;
    std::size_t tile_bytes() const;
    std::size_t size_bytes() const { return num_tiles() * tile_bytes(); }
};

}  // namespace facrt
