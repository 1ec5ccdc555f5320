#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "facrt/real_fft.hpp"

namespace facrt {

// One frame of 16 kHz audio to log10 mel power: periodic Hann, power spectrum, slaney filters over 0 .. 8000 Hz.
class MelExtractor {
  public:
    static constexpr std::int64_t sample_rate_hz = 16000;
    static constexpr std::int64_t window_samples = 400;
    static constexpr std::int64_t hop_samples = 160;

    // 1 .. 201 mels (128 for Fun-Audio-Chat), else std::invalid_argument.
    explicit MelExtractor(std::int64_t num_mels);

    std::int64_t num_mels() const { return static_cast<std::int64_t>(filters_.size()); }

    // samples: [400], out: [num_mels] log10(max(power, 1e-10)). Safe from several threads.
    void frame(std::span<const float, window_samples> samples, std::span<float> out) const;

  private:
    struct Filter {
        std::size_t first_bin;
        std::vector<double> weights;
    };

    RealFft400 fft_;
    std::array<double, window_samples> window_;
    std::vector<Filter> filters_;  // [num_mels]
};

// Whole frames of a stretch of audio: samples [(n - 1) * 160 + 400], out [num_mels, n] log10 power, not scaled.
// What the spectrograms are made of; throws std::invalid_argument as they do.
void log_power(const MelExtractor& mel, std::span<const float> samples, std::span<float> out);
std::int64_t log_power_num_frames(std::int64_t num_samples);

// The two spectrograms: (max(log10 power, largest - 8) + 4) / 4, 100 frames/s.
// Both throw std::invalid_argument for a length that is not allowed, a sample that is not finite, an out of wrong size.

// Whisper's: pcm [N] as if zero-padded to 300 s, out [num_mels, ceil(N / 160)]; 1 <= N <= 4800000.  SEMANTICS.md 1.5
void whisper_log_mel(const MelExtractor& mel, std::span<const float> pcm, std::span<float> out);
std::int64_t whisper_num_frames(std::int64_t num_samples);

// The S3 speech tokenizer's: reflected at both ends of pcm [N], out [num_mels, N / 160]; N >= 201.  SEMANTICS.md 9
void reflect_log_mel(const MelExtractor& mel, std::span<const float> pcm, std::span<float> out);
std::int64_t reflect_num_frames(std::int64_t num_samples);

}  // namespace facrt
