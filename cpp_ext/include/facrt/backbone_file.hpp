#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "facrt/decoder_weights.hpp"
#include "facrt/mapped_file.hpp"

namespace facrt {

// The weights of a dense backbone in one memory-mapped file, little-endian:
//   bytes 0 .. 7    "FACRTBB\0"
//   uint32          version, 1
//   uint32          WeightFormat
//   DecoderDims     7 x uint32, float32, float64
//   uint32          vocab_size V
//   uint64          size of the file in bytes
//   uint64          number of tensors
//   per tensor      uint64 offset, uint64 size in bytes; offsets are multiples of 64, ascending, without overlap
// Tensors, in this order: per layer the members of DecoderLayer in their order (biases only where there are any);
// norm [H], head [V, H]. Vectors are float32. Embeddings are not in it: the backbone is fed rows.
class BackboneFile {
  public:
    // Throws std::system_error when the file cannot be mapped, std::runtime_error when any of it is not as above.
    explicit BackboneFile(const std::filesystem::path& path);

    const DecoderDims& dims() const { return decoder.dims; }
    std::size_t vocab_size() const { return head.rows; }
    WeightFormat format() const { return decoder.format; }
    std::span<const std::byte> bytes() const { return file_.bytes(); }  // the whole file

    DecoderWeights decoder;
    std::span<const float> norm;  // [H]
    PackedMatrix head;

  private:
    MappedFile file_;
};

}  // namespace facrt
