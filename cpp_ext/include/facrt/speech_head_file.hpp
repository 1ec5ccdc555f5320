#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "facrt/decoder_weights.hpp"
#include "facrt/mapped_file.hpp"

namespace facrt {

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

    DecoderDims decoder() const {
        return {inner_size, intermediate_size,  num_layers,   num_heads, num_kv_heads,
                head_dim,   has_attention_bias, rms_norm_eps, rope_theta};
    }
};

// The weights of a speech head in one memory-mapped file, little-endian:
//   bytes 0 .. 7    "FACRTSH\0"
//   uint32          version, 2
//   uint32          WeightFormat
//   SpeechHeadDims  11 x uint32, float32, float64
//   uint64          size of the file in bytes
//   uint64          number of tensors
//   per tensor      uint64 offset, uint64 size in bytes; offsets are multiples of 64, ascending, without overlap
// Tensors, in this order: upsample [G H, H], its bias, input [inner, H]; per layer the members of DecoderLayer in
// their order (biases only where there are any); norm [inner], output [H, inner], head [K, H], and the embedding
// [K, H], row-major, float32 or float16 where the format is fp32 or fp16, bfloat16 otherwise. Vectors are float32.
class SpeechHeadFile {
  public:
    // Throws std::system_error when the file cannot be mapped, std::runtime_error when any of it is not as above.
    explicit SpeechHeadFile(const std::filesystem::path& path);

    const SpeechHeadDims& dims() const { return dims_; }
    WeightFormat format() const { return decoder.format; }
    std::span<const std::byte> bytes() const { return file_.bytes(); }  // the whole file

    PackedMatrix upsample;
    std::span<const float> upsample_bias;  // [G H]
    PackedMatrix input;
    DecoderWeights decoder;       // the inner transformer
    std::span<const float> norm;  // [inner_size]
    PackedMatrix output;
    PackedMatrix head;

    // out: [H] = E[id]; id in 0 .. K-1.
    void embed(std::size_t id, std::span<float> out) const;

  private:
    MappedFile file_;
    SpeechHeadDims dims_;
    const std::byte* embedding_ = nullptr;
};

}  // namespace facrt
