#include "facrt/real_fft.hpp"

#include <cmath>
#include <numbers>

namespace facrt {
namespace {

constexpr std::size_t size = RealFft400::num_samples / 2;

struct Signal {
    alignas(64) std::array<double, size> re;
    alignas(64) std::array<double, size> im;
};

struct Complex {
    double re;
    double im;
};

Complex operator+(Complex a, Complex b) {
    return {a.re + b.re, a.im + b.im};
}
Complex operator-(Complex a, Complex b) {
    return {a.re - b.re, a.im - b.im};
}
Complex times(double s, Complex a) {
    return {s * a.re, s * a.im};
}
Complex times_minus_i(Complex a) {
    return {a.im, -a.re};
}

void butterfly(std::array<Complex, 2>& x) {
    x = {x[0] + x[1], x[0] - x[1]};
}

void butterfly(std::array<Complex, 4>& x) {
    const Complex even = x[0] + x[2], even_difference = x[0] - x[2];
    const Complex odd = x[1] + x[3], odd_difference = times_minus_i(x[1] - x[3]);
    x = {even + odd, even_difference + odd_difference, even - odd, even_difference - odd_difference};
}

void butterfly(std::array<Complex, 5>& x) {
    constexpr double cos1 = 0.30901699437494742410, cos2 = -0.80901699437494742410;
    constexpr double sin1 = 0.95105651629515357212, sin2 = 0.58778525229247312917;
    const Complex sum1 = x[1] + x[4], difference1 = times_minus_i(x[1] - x[4]);
    const Complex sum2 = x[2] + x[3], difference2 = times_minus_i(x[2] - x[3]);
    const Complex real1 = x[0] + times(cos1, sum1) + times(cos2, sum2);
    const Complex real2 = x[0] + times(cos2, sum1) + times(cos1, sum2);
    const Complex turn1 = times(sin1, difference1) + times(sin2, difference2);
    const Complex turn2 = times(sin2, difference1) - times(sin1, difference2);
    x = {x[0] + sum1 + sum2, real1 + turn1, real2 + turn2, real2 - turn2, real1 - turn1};
}

// One decimation-in-frequency Stockham stage: length = radix * parts is split into `stride` interleaved transforms.
template <std::size_t radix, std::size_t length, class Roots>
void stage(const Signal& in, Signal& out, const Roots& roots) {
    constexpr std::size_t stride = size / length;
    constexpr std::size_t parts = length / radix;
    for (std::size_t p = 0; p < parts; ++p) {
        std::array<Complex, radix> twiddle;
        for (std::size_t k = 0; k < radix; ++k) {
            const auto& root = roots[(2 * stride * p * k) % roots.size()];
            twiddle[k] = {root.re, root.im};
        }
        for (std::size_t q = 0; q < stride; ++q) {
            std::array<Complex, radix> x;
            for (std::size_t k = 0; k < radix; ++k) {
                const std::size_t i = q + stride * (p + k * parts);
                x[k] = {in.re[i], in.im[i]};
            }
            butterfly(x);
            for (std::size_t k = 0; k < radix; ++k) {
                const std::size_t i = q + stride * (radix * p + k);
                out.re[i] = x[k].re * twiddle[k].re - x[k].im * twiddle[k].im;
                out.im[i] = x[k].re * twiddle[k].im + x[k].im * twiddle[k].re;
            }
        }
    }
}

}  // namespace

RealFft400::RealFft400() {
    for (std::size_t k = 0; k < num_samples; ++k) {
        const double angle = -2.0 * std::numbers::pi * static_cast<double>(k) / num_samples;
        roots_[k] = {std::cos(angle), std::sin(angle)};
    }
}

void RealFft400::power(std::span<const double, num_samples> samples, std::span<double, num_bins> power) const {
    Signal a, b;
    for (std::size_t n = 0; n < num_pairs; ++n) {
        a.re[n] = samples[2 * n];
        a.im[n] = samples[2 * n + 1];
    }
    stage<5, 200>(a, b, roots_);
    stage<5, 40>(b, a, roots_);
    stage<4, 8>(a, b, roots_);
    stage<2, 2>(b, a, roots_);
    for (std::size_t k = 0; k < num_bins; ++k) {
        const std::size_t i = k % num_pairs, j = (num_pairs - k) % num_pairs;
        const Complex even{0.5 * (a.re[i] + a.re[j]), 0.5 * (a.im[i] - a.im[j])};
        const Complex odd{0.5 * (a.im[i] + a.im[j]), 0.5 * (a.re[j] - a.re[i])};
        const double re = even.re + odd.re * roots_[k].re - odd.im * roots_[k].im;
        const double im = even.im + odd.re * roots_[k].im + odd.im * roots_[k].re;
        power[k] = re * re + im * im;
    }
}

}  // namespace facrt
