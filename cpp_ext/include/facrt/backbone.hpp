#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>

#include "facrt/backbone_file.hpp"
#include "facrt/cache_format.hpp"

namespace facrt {

struct BackboneOptions {
    std::size_t num_threads = 1;       // >= 1
    std::size_t max_positions = 4096;  // of the KV cache, which takes memory as it is used
    CacheFormat cache = CacheFormat::float32;
};

// The text model on rows of embeddings: a hidden state per row, logits of the last.  SEMANTICS.md 4
// Results are the same bits for any number of threads, and for rows given at once or in parts.
// One caller at a time. A call that throws leaves the state as it was before it.
class Backbone {
  public:
    // Maps the file. Throws what BackboneFile throws, std::invalid_argument for options out of range,
    // std::runtime_error when FACRT_ISA names what this processor cannot run.
    Backbone(const std::filesystem::path& path, const BackboneOptions& options);
    ~Backbone();
    Backbone(Backbone&&) noexcept;
    Backbone& operator=(Backbone&&) noexcept;

    const DecoderDims& dims() const;
    std::size_t vocab_size() const;
    WeightFormat format() const;
    std::string_view isa() const;  // "portable", "avx2", ...
    std::size_t num_positions() const;
    std::size_t max_positions() const;
    std::size_t cache_bytes_per_position() const;  // of keys and values, all layers

    // Runs new positions: embeds [S, H] -> hidden [S, H], normed, and logits [V] of the last one.
    // Throws std::invalid_argument for other shapes, NaN or infinity, std::length_error beyond max_positions.
    void forward(std::span<const float> embeds, std::span<float> hidden, std::span<float> logits);

    void truncate(std::size_t position);  // forgets every position from `position` on

    // Reads the whole weight file once, all threads together; returns a checksum. Brings the file into memory, and
    // tells a benchmark how fast memory can be read.
    std::uint64_t read_weights();

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace facrt
