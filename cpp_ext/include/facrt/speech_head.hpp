#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>

#include "facrt/cache_format.hpp"
#include "facrt/sampler.hpp"
#include "facrt/speech_head_file.hpp"

namespace facrt {

struct SpeechHeadOptions {
    std::size_t num_threads = 1;       // >= 1
    std::size_t max_positions = 4096;  // backbone positions; the KV cache grows to them as they are used
    CacheFormat cache = CacheFormat::float32;
};

// The refinement loop: group_size speech tokens per backbone step.  SEMANTICS.md 4
// Results are the same bits for any number of threads, and for a prompt with or without a cached beginning.
// One caller at a time. A call that throws leaves the state as it was before it.
class SpeechHeadLoop {
  public:
    // Maps the file. Throws what SpeechHeadFile throws, std::invalid_argument for options out of range,
    // std::runtime_error when FACRT_ISA names what this processor cannot run.
    SpeechHeadLoop(const std::filesystem::path& path, const SpeechHeadOptions& options);
    ~SpeechHeadLoop();
    SpeechHeadLoop(SpeechHeadLoop&&) noexcept;
    SpeechHeadLoop& operator=(SpeechHeadLoop&&) noexcept;

    const SpeechHeadDims& dims() const;
    WeightFormat format() const;
    std::string_view isa() const;       // "portable", "avx2", ...
    std::size_t num_positions() const;  // backbone positions seen
    std::size_t max_positions() const;
    std::size_t cache_bytes_per_position() const;  // of keys and values, all layers, one backbone position

    // The prompt: u [T, H], hidden state plus text embedding of each position; tokens [group_size] of the last
    // position, which the generation loop discards though the cache keeps them.
    // Throws std::invalid_argument for other shapes, NaN or infinity, std::length_error beyond max_positions, what
    // Sampler::pick throws.
    void prefill(std::span<const float> u, Sampler& sampler, const SamplingOptions& options,
                 std::span<std::int64_t> tokens);

    // The beginning of a prompt, u [T, H], that prefill continues: nothing is chosen. What is cached for it can serve
    // again after truncate(T). Throws as prefill does.
    void extend(std::span<const float> u);

    // One backbone step: u [H]. Throws as prefill does.
    void group(std::span<const float> u, Sampler& sampler, const SamplingOptions& options,
               std::span<std::int64_t> tokens);

    void reset() { truncate(0); }
    void truncate(std::size_t position);  // forgets every backbone position from `position` on

    // Reads the whole weight file once, all threads together; returns a checksum. Brings the file into memory, and
    // tells a benchmark how fast memory can be read.
    std::uint64_t read_weights();

    // [K] of sub-step i < group_size of the newest group, valid until the next one.
    std::span<const float> logits(std::size_t i) const;

  private:
    struct State;
    std::unique_ptr<State> state_;
};

// Performs num_rounds x 1024 int8 multiply-adds in registers, for benchmarks; returns their sum, scaled.
std::int32_t int8_multiply_adds(std::size_t num_rounds);

}  // namespace facrt
