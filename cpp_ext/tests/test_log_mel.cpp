#include <algorithm>
#include <array>
#include <cmath>
#include <complex>
#include <limits>
#include <numbers>
#include <vector>

#include "check.hpp"
#include "facrt/log_mel.hpp"
#include "facrt/real_fft.hpp"

namespace {

std::vector<float> sine(double hz, std::size_t num_samples) {
    std::vector<float> pcm(num_samples);
    for (std::size_t n = 0; n < num_samples; ++n) {
        pcm[n] = static_cast<float>(0.5 * std::sin(2.0 * std::numbers::pi * hz * static_cast<double>(n) / 16000.0));
    }
    return pcm;
}

void fft_equals_the_sum_it_stands_for() {
    std::array<double, 400> samples;
    for (std::size_t n = 0; n < 400; ++n) samples[n] = std::sin(0.37 * static_cast<double>(n * n % 401));
    std::array<double, 201> power;
    facrt::RealFft400().power(samples, power);
    for (std::size_t k = 0; k < 201; ++k) {
        std::complex<double> sum = 0.0;
        for (std::size_t n = 0; n < 400; ++n) {
            sum += samples[n] * std::polar(1.0, -2.0 * std::numbers::pi * static_cast<double>(n * k % 400) / 400.0);
        }
        CHECK(std::abs(power[k] - std::norm(sum)) < 1e-9);
    }
}

void sine_lands_in_its_mel() {
    const facrt::MelExtractor mel(128);
    const std::vector<float> pcm = sine(1000.0, 16000);
    CHECK(facrt::whisper_num_frames(16000) == 100);
    std::vector<float> out(128 * 100);
    facrt::whisper_log_mel(mel, pcm, out);
    std::vector<float> column(128);
    for (std::size_t m = 0; m < 128; ++m) column[m] = out[m * 100 + 50];
    // 1000 Hz is 15 mel of 45.2456 in all, cut into 129 steps: the peak of filter 42 is 15.08 mel.
    CHECK(std::max_element(column.begin(), column.end()) - column.begin() == 42);
}

void the_two_spectrograms_differ_only_at_the_right_edge() {
    const facrt::MelExtractor mel(80);
    const std::vector<float> pcm = sine(440.0, 3200);
    std::vector<float> padded(80 * 20), reflected(80 * 20);
    facrt::whisper_log_mel(mel, pcm, padded);
    facrt::reflect_log_mel(mel, pcm, reflected);
    for (std::size_t m = 0; m < 80; ++m) CHECK(std::abs(padded[m * 20 + 9] - reflected[m * 20 + 9]) < 0.5f);
    CHECK(padded[19] != reflected[19]);
}

void lengths_are_checked() {
    using std::invalid_argument;
    CHECK(facrt::whisper_num_frames(1) == 1);
    CHECK(facrt::whisper_num_frames(161) == 2);
    CHECK(facrt::whisper_num_frames(4'800'000) == 30'000);
    CHECK(facrt::reflect_num_frames(201) == 1);
    CHECK(throws<invalid_argument>([] { facrt::whisper_num_frames(0); }, "pcm has 0 samples"));
    CHECK(throws<invalid_argument>([] { facrt::whisper_num_frames(4'800'001); }, "1 .. 4800000"));
    CHECK(throws<invalid_argument>([] { facrt::reflect_num_frames(200); }, "at least 201"));
    CHECK(throws<invalid_argument>([] { facrt::MelExtractor(0); }, "1 .. 201"));
    CHECK(throws<invalid_argument>([] { facrt::MelExtractor(202); }, "1 .. 201"));
    const facrt::MelExtractor mel(128);
    std::vector<float> pcm(320), out(2 * 128), small(128);
    CHECK(throws<invalid_argument>([&] { facrt::whisper_log_mel(mel, pcm, small); }, "must have 256"));
    pcm[7] = std::numeric_limits<float>::quiet_NaN();
    CHECK(throws<invalid_argument>([&] { facrt::whisper_log_mel(mel, pcm, out); }, "sample 7 is not finite"));
}

}  // namespace

int main() {
    fft_equals_the_sum_it_stands_for();
    sine_lands_in_its_mel();
    the_two_spectrograms_differ_only_at_the_right_edge();
    lengths_are_checked();
}
