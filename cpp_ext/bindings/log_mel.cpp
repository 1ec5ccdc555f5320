#include "facrt/log_mel.hpp"

#include "arrays.hpp"
#include "bindings.hpp"

namespace facrt::bindings {

using namespace nb::literals;

void add_log_mel(nb::module_& m) {
    m.def(
        "log_power",
        [](const Floats& samples, std::int64_t num_mels) {
            const MelExtractor mel(num_mels);
            const std::int64_t num_frames = log_power_num_frames(std::ssize(view(samples)));
            return make_array({static_cast<std::size_t>(num_mels), static_cast<std::size_t>(num_frames)},
                              [&](std::span<float> out) { log_power(mel, view(samples), out); });
        },
        "samples"_a.noconvert(), "num_mels"_a = 128,
        R"(Log10 mel power of whole frames of 16 kHz audio, before the spectrograms' clamp and scale.

samples: [N], N >= 400. Returns [num_mels, (N - 400) // 160 + 1], 100 frames/s.
Raises ValueError for a shorter stretch, a sample that is not finite, or num_mels outside 1 .. 201.
Source: SEMANTICS.md 1.5.)");
    m.def(
        "whisper_log_mel",
        [](const Floats& pcm, std::int64_t num_mels) {
            const MelExtractor mel(num_mels);
            const std::int64_t num_frames = whisper_num_frames(std::ssize(view(pcm)));
            return make_array({static_cast<std::size_t>(num_mels), static_cast<std::size_t>(num_frames)},
                              [&](std::span<float> out) { whisper_log_mel(mel, view(pcm), out); });
        },
        "pcm"_a.noconvert(), "num_mels"_a = 128,
        R"(Log-mel of 16 kHz audio as Whisper's extractor computes it after zero-padding to 300 s.

pcm: [N] samples, 1 <= N <= 4800000. Returns [num_mels, ceil(N / 160)], 100 frames/s: the valid frames only.
Raises ValueError for another length, a sample that is not finite, or num_mels outside 1 .. 201.
Source: SEMANTICS.md 1.5.)");
    m.def(
        "reflect_log_mel",
        [](const Floats& pcm, std::int64_t num_mels) {
            const MelExtractor mel(num_mels);
            const std::int64_t num_frames = reflect_num_frames(std::ssize(view(pcm)));
            return make_array({static_cast<std::size_t>(num_mels), static_cast<std::size_t>(num_frames)},
                              [&](std::span<float> out) { reflect_log_mel(mel, view(pcm), out); });
        },
        "pcm"_a.noconvert(), "num_mels"_a = 128,
        R"(Log-mel of 16 kHz audio reflected at both its ends: the input of the S3 speech tokenizer.

pcm: [N] samples, N >= 201. Returns [num_mels, N // 160], 100 frames/s.
Raises ValueError for a shorter pcm, a sample that is not finite, or num_mels outside 1 .. 201.
Source: SEMANTICS.md 9.)");
}

}  // namespace facrt::bindings
