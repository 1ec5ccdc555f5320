#pragma once

#include <array>
#include <cstddef>
#include <span>

namespace facrt {

// Power spectrum of 400 real samples (25 ms at 16 kHz), in double: a 200-point complex transform of sample pairs.
class RealFft400 {
  public:
    static constexpr std::size_t num_samples = 400;
    static constexpr std::size_t num_bins = 201;  // 40 Hz apart

    RealFft400();

    // samples: [400]; power: [201], |X|^2, not normalised.
    void power(std::span<const double, num_samples> samples, std::span<double, num_bins> power) const;

  private:
    static constexpr std::size_t num_pairs = num_samples / 2;

    struct Twiddle {
        double re;
        double im;
    };

    std::array<Twiddle, num_samples> roots_;  // exp(-2 pi i k / 400)
};

}  // namespace facrt
