#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

#include "facrt/mapped_file.hpp"

namespace facrt {

// How the matrices of a speech head are stored.
enum class WeightFormat : std::uint32_t { fp32 = 0, fp16 = 1, bf16 = 2, int8 = 3, int4_32 = 4, int4_128 = 5 };

std::string_view name_of(WeightFormat format);

// The sizes of one speech head, in the order of the file's header.
struct SpeechHeadDims {
    std::uint32_t hidden_size = 0;        // H, the backbone's
    std::uint32_t inner_size = 0;         // of the inner transformer
    std::uint32_t intermediate_size = 0;  // of its SwiGLU
    std::uint32_t num_layers = 0;
    std::uint32_t num_heads = 0;
    std::uint32_t num_kv_heads = 0;
    std::uint32_t head_dim = 0;  // even
    std::uint32_t group_size = 0;
    std::uint32_t codebook_size = 0;  // K
    std::uint32_t bos_id = 0;         // conditions the first token
    std::uint32_t has_attention_bias = 0;
    float rms_norm_eps = 0.0f;
    double rope_theta = 0.0;
};

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

struct SpeechHeadLayer {
    std::span<const float> attention_norm;  // [inner_size]
    PackedMatrix qkv;                       // [(num_heads + 2 num_kv_heads) head_dim, inner_size]
    std::span<const float> qkv_bias;        // empty without has_attention_bias
    std::span<const float> q_norm;          // [head_dim]
    std::span<const float> k_norm;          // [head_dim]
    PackedMatrix out;                       // [inner_size, num_heads head_dim]
    std::span<const float> out_bias;        // empty without has_attention_bias
    std::span<const float> mlp_norm;        // [inner_size]
    PackedMatrix gate;                      // [intermediate_size, inner_size]
    PackedMatrix up;                        // [intermediate_size, inner_size]
    PackedMatrix down;                      // [inner_size, intermediate_size]
};

// The weights of a speech head in one memory-mapped file, little-endian:
//   bytes 0 .. 7    "FACRTSH\0"
//   uint32          version, 1
//   uint32          WeightFormat
//   SpeechHeadDims  11 x uint32, float32, float64
//   uint64          size of the file in bytes
//   uint64          number of tensors
//   per tensor      uint64 offset, uint64 size in bytes; offsets are multiples of 64, ascending, without overlap
// Tensors, in this order: upsample [G H, H], its bias, input [inner, H]; per layer the members of SpeechHeadLayer in
// their order (biases only where there are any); norm [inner], output [H, inner], head [K, H], and the embedding
// [K, H], row-major, float32 where the format is fp32, bfloat16 otherwise. Vectors are float32.
class SpeechHeadFile {
  public:
    // Throws std::system_error when the file cannot be mapped, std::runtime_error when any of it is not as above.
    explicit SpeechHeadFile(const std::filesystem::path& path);

    const SpeechHeadDims& dims() const { return dims_; }
    WeightFormat format() const { return format_; }
    std::span<const std::byte> bytes() const { return file_.bytes(); }  // the whole file

    PackedMatrix upsample;
    std::span<const float> upsample_bias;  // [G H]
    PackedMatrix input;
    std::vector<SpeechHeadLayer> layers;
    std::span<const float> norm;  // [inner_size]
    PackedMatrix output;
    PackedMatrix head;

    // out: [H] = E[id]; id in 0 .. K-1.
    void embed(std::size_t id, std::span<float> out) const;

  private:
    MappedFile file_;
    SpeechHeadDims dims_;
    WeightFormat format_ = WeightFormat::fp32;
    const std::byte* embedding_ = nullptr;
};

}  // namespace facrt
