#include "facrt/log_mel.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <stdexcept>
#include <string>

namespace facrt {
namespace {

constexpr std::int64_t hop = MelExtractor::hop_samples;
constexpr std::int64_t half_window = MelExtractor::window_samples / 2;
constexpr std::int64_t whisper_padded_samples = 4'800'000;  // 300 s
constexpr float power_floor = 1e-10f;

// Slaney's mel scale: linear to 1000 Hz (15 mel), then 27 mel per factor of 6.4.
double mel_to_hz(double mel) {
    return mel < 15.0 ? mel * 200.0 / 3.0 : 1000.0 * std::exp((mel - 15.0) * std::log(6.4) / 27.0);
}

double hz_to_mel(double hz) {
    return hz < 1000.0 ? hz * 3.0 / 200.0 : 15.0 + std::log(hz / 1000.0) * 27.0 / std::log(6.4);
}

// pcm[index] of a signal of padded_length samples: reflected at both its ends, zero between pcm's end and its own.
float padded_sample(std::span<const float> pcm, std::int64_t padded_length, std::int64_t index) {
    if (index < 0) index = -index;
    if (index >= padded_length) index = 2 * (padded_length - 1) - index;
    return index < std::ssize(pcm) ? pcm[static_cast<std::size_t>(index)] : 0.0f;
}

void check_finite(std::span<const float> pcm) {
    for (std::size_t i = 0; i < pcm.size(); ++i) {
        if (!std::isfinite(pcm[i])) {
            throw std::invalid_argument("sample " + std::to_string(i) + " is not finite, all samples must be");
        }
    }
}

// Frames 0 .. num_frames of the padded signal; frames up to num_peak_frames only count for the largest value.
void log_mel(const MelExtractor& mel, std::span<const float> pcm, std::int64_t padded_length, std::int64_t num_frames,
             std::int64_t num_peak_frames, std::span<float> out) {
    const auto num_mels = static_cast<std::size_t>(mel.num_mels());
    const auto width = static_cast<std::size_t>(num_frames);
    if (out.size() != num_mels * width) {
        throw std::invalid_argument("out has " + std::to_string(out.size()) + " values, must have " +
                                    std::to_string(num_mels * width));
    }
    check_finite(pcm);

    std::array<float, MelExtractor::window_samples> samples;
    std::vector<float> column(num_mels);
    float largest = -10.0f;
    for (std::int64_t t = 0; t < num_peak_frames; ++t) {
        const std::int64_t start = t * hop - half_window;
        if (start >= 0 && start + MelExtractor::window_samples <= std::ssize(pcm)) {
            std::copy_n(pcm.begin() + start, samples.size(), samples.begin());
        } else {
            for (std::int64_t i = 0; i < std::ssize(samples); ++i) {
                samples[static_cast<std::size_t>(i)] = padded_sample(pcm, padded_length, start + i);
            }
        }
        mel.frame(samples, column);
        largest = std::max(largest, *std::max_element(column.begin(), column.end()));
        if (t < num_frames) {
            for (std::size_t m = 0; m < num_mels; ++m) out[m * width + static_cast<std::size_t>(t)] = column[m];
        }
    }
    const float floor = largest - 8.0f;
    for (float& value : out) value = (std::max(value, floor) + 4.0f) * 0.25f;
}

}  // namespace

MelExtractor::MelExtractor(std::int64_t num_mels) {
    constexpr auto num_bins = static_cast<std::int64_t>(RealFft400::num_bins);
    if (num_mels < 1 || num_mels > num_bins) {
        throw std::invalid_argument("num_mels " + std::to_string(num_mels) + " is outside 1 .. " +
                                    std::to_string(num_bins));
    }
    for (std::size_t n = 0; n < window_.size(); ++n) {
        window_[n] = 0.5 - 0.5 * std::cos(2.0 * std::numbers::pi * static_cast<double>(n) / window_samples);
    }

    constexpr double bin_hz = static_cast<double>(sample_rate_hz) / window_samples;
    const double mel_step = hz_to_mel(sample_rate_hz / 2.0) / static_cast<double>(num_mels + 1);
    for (std::int64_t m = 0; m < num_mels; ++m) {
        const double low = mel_to_hz(mel_step * static_cast<double>(m));
        const double peak = mel_to_hz(mel_step * static_cast<double>(m + 1));
        const double high = mel_to_hz(mel_step * static_cast<double>(m + 2));
        const auto first = static_cast<std::int64_t>(std::ceil(low / bin_hz));
        Filter filter{static_cast<std::size_t>(first), {}};
        for (std::int64_t bin = first; bin < num_bins && static_cast<double>(bin) * bin_hz < high; ++bin) {
            const double hz = static_cast<double>(bin) * bin_hz;
            const double slope = std::min((hz - low) / (peak - low), (high - hz) / (high - peak));
            filter.weights.push_back(slope * 2.0 / (high - low));
        }
        filters_.push_back(std::move(filter));
    }
}

void MelExtractor::frame(std::span<const float, window_samples> samples, std::span<float> out) const {
    if (out.size() != filters_.size()) {
        throw std::invalid_argument("out has " + std::to_string(out.size()) + " values, must have " +
                                    std::to_string(filters_.size()));
    }
    std::array<double, window_samples> windowed;
    for (std::size_t n = 0; n < windowed.size(); ++n) windowed[n] = static_cast<double>(samples[n]) * window_[n];
    std::array<double, RealFft400::num_bins> power;
    fft_.power(windowed, power);
    for (std::size_t m = 0; m < filters_.size(); ++m) {
        const Filter& filter = filters_[m];
        double sum = 0.0;
        for (std::size_t i = 0; i < filter.weights.size(); ++i) sum += filter.weights[i] * power[filter.first_bin + i];
        out[m] = std::log10(std::max(static_cast<float>(sum), power_floor));
    }
}

std::int64_t log_power_num_frames(std::int64_t num_samples) {
    if (num_samples < MelExtractor::window_samples) {
        throw std::invalid_argument("samples are " + std::to_string(num_samples) + ", must be at least " +
                                    std::to_string(MelExtractor::window_samples));
    }
    return (num_samples - MelExtractor::window_samples) / hop + 1;
}

void log_power(const MelExtractor& mel, std::span<const float> samples, std::span<float> out) {
    const auto num_mels = static_cast<std::size_t>(mel.num_mels());
    const auto num_frames = static_cast<std::size_t>(log_power_num_frames(std::ssize(samples)));
    if (out.size() != num_mels * num_frames) {
        throw std::invalid_argument("out has " + std::to_string(out.size()) + " values, must have " +
                                    std::to_string(num_mels * num_frames));
    }
    check_finite(samples);
    std::vector<float> column(num_mels);
    for (std::size_t t = 0; t < num_frames; ++t) {
        mel.frame(samples.subspan(t * hop).first<MelExtractor::window_samples>(), column);
        for (std::size_t m = 0; m < num_mels; ++m) out[m * num_frames + t] = column[m];
    }
}

std::int64_t whisper_num_frames(std::int64_t num_samples) {
    if (num_samples < 1 || num_samples > whisper_padded_samples) {
        throw std::invalid_argument("pcm has " + std::to_string(num_samples) + " samples, must have 1 .. " +
                                    std::to_string(whisper_padded_samples) + " (300 s)");
    }
    return (num_samples + hop - 1) / hop;
}

void whisper_log_mel(const MelExtractor& mel, std::span<const float> pcm, std::span<float> out) {
    const std::int64_t num_frames = whisper_num_frames(std::ssize(pcm));
    // The frames after the last valid one whose window still holds a sample: whichever is largest sets the floor.
    const std::int64_t num_touched = (std::ssize(pcm) - 1 + half_window) / hop + 1;
    log_mel(mel, pcm, whisper_padded_samples, num_frames, std::min(num_touched, whisper_padded_samples / hop), out);
}

std::int64_t reflect_num_frames(std::int64_t num_samples) {
    if (num_samples <= half_window) {
        throw std::invalid_argument("pcm has " + std::to_string(num_samples) + " samples, must have at least " +
                                    std::to_string(half_window + 1));
    }
    return num_samples / hop;
}

void reflect_log_mel(const MelExtractor& mel, std::span<const float> pcm, std::span<float> out) {
    const std::int64_t num_frames = reflect_num_frames(std::ssize(pcm));
    log_mel(mel, pcm, std::ssize(pcm), num_frames, num_frames, out);
}

}  // namespace facrt
