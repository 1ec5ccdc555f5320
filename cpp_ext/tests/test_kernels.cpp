#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "../src/activations.hpp"
#include "check.hpp"
#include "emulated.hpp"
#include "facrt/speech_head_file.hpp"
#include "random_weights.hpp"

namespace {

using facrt::Activations;
using facrt::WeightFormat;
using facrt::kernels::Kernels;

constexpr std::size_t cols = 512;
constexpr std::size_t most_rows = 13;

// One tile of every format, [16, cols], with every byte value among its integers.
std::vector<std::byte> random_tile(WeightFormat format, std::mt19937& random) {
    const facrt::PackedMatrix shape{format, 16, cols, nullptr};
    std::vector<std::byte> tile(shape.tile_bytes());
    std::normal_distribution<float> normal;
    const auto put = [&](std::size_t place, auto value) { std::memcpy(tile.data() + place, &value, sizeof value); };
    if (format == WeightFormat::fp32) {
        for (std::size_t i = 0; i < tile.size(); i += 4) put(i, normal(random));
    } else if (format == WeightFormat::fp16 || format == WeightFormat::bf16) {
        for (std::size_t i = 0; i < tile.size(); i += 2) put(i, facrt::float_to_float16(0.1f * normal(random)));
    } else {
        for (std::byte& byte : tile) byte = static_cast<std::byte>(random());
        const std::size_t pair_bytes = format == WeightFormat::int4_32 ? 64 + 64 * 8 : 64 + 256 * 8;
        if (format == WeightFormat::int8) {
            for (std::byte& byte : tile) byte = std::max(byte, std::byte{1});
            for (std::size_t i = 0; i < 64; i += 4) put(i, 0.01f + std::abs(normal(random)));
        } else {
            for (std::size_t start = 0; start < tile.size(); start += pair_bytes) {
                for (std::size_t i = 0; i < 64; i += 2) put(start + i, facrt::float_to_float16(normal(random)));
            }
        }
    }
    return tile;
}

Activations random_rows(const Kernels& kernels, std::mt19937& random) {
    Activations rows(most_rows, cols, true);
    std::normal_distribution<float> normal;
    for (std::size_t i = 0; i < most_rows; ++i) {
        for (std::size_t c = 0; c < cols; ++c) rows.row(i)[c] = c % 32 == i ? 30.0f : normal(random);
        if (i == 3) std::fill_n(rows.row(i), cols, 0.0f);
        rows.quantize(i, kernels);
    }
    return rows;
}

std::vector<float> product(const Kernels& kernels, WeightFormat format, const std::vector<std::byte>& tile,
                           const Activations& rows, std::size_t num_rows) {
    std::vector<float> y(num_rows * 20, -7.0f);  // 16 of every 20 are written
    kernels.products[static_cast<std::size_t>(format)](tile.data(), cols, rows.rows(num_rows), y.data(), 20);
    for (std::size_t i = 0; i < num_rows; ++i) {
        for (std::size_t c = 16; c < 20; ++c) CHECK(y[i * 20 + c] == -7.0f);
    }
    return y;
}

// Integer sums are exact, so integer formats differ by the rounding of fused multiply-adds alone.
void products_agree(const Kernels& kernels) {
    std::mt19937 random(23);
    const Activations rows = random_rows(facrt::kernels::portable, random);
    for (std::size_t f = 0; f < 6; ++f) {
        const auto format = static_cast<WeightFormat>(f);
        const std::vector<std::byte> tile = random_tile(format, random);
        const std::vector<float> wanted = product(facrt::kernels::portable, format, tile, rows, most_rows);
        const std::vector<float> whole = product(kernels, format, tile, rows, most_rows);
        double difference = 0.0, total = 0.0;
        for (std::size_t i = 0; i < wanted.size(); ++i) {
            difference += std::pow(double{whole[i]} - double{wanted[i]}, 2);
            total += std::pow(double{wanted[i]}, 2);
        }
        if (difference > 1e-12 * total) std::cerr << kernels.name << " " << facrt::name_of(format) << "\n";
        CHECK(difference <= 1e-12 * total);
        for (std::size_t num_rows = 1; num_rows < most_rows; ++num_rows) {
            const std::vector<float> part = product(kernels, format, tile, rows, num_rows);
            const bool same_bits = std::memcmp(part.data(), whole.data(), part.size() * sizeof(float)) == 0;
            if (!same_bits) std::cerr << kernels.name << " " << facrt::name_of(format) << " " << num_rows << " rows\n";
            CHECK(same_bits);
        }
    }
}

void quantizing_agrees(const Kernels& kernels) {
    std::mt19937 random(29);
    const Activations wanted = random_rows(facrt::kernels::portable, random);
    random.seed(29);
    const Activations found = random_rows(kernels, random);
    const facrt::kernels::Rows a = found.rows(most_rows), b = wanted.rows(most_rows);
    for (std::size_t i = 0; i < most_rows * cols; ++i) CHECK(a.quantized[i] == b.quantized[i]);
    for (std::size_t i = 0; i < most_rows * cols / 32; ++i) {
        CHECK(a.scales[i] == b.scales[i]);
        CHECK(a.sums[i] == b.sums[i]);
    }
}

void scores_are_found(const Kernels& kernels) {
    std::mt19937 random(31);
    std::normal_distribution<float> normal;
    for (const std::size_t n : {1, 15, 16, 100, 6565}) {
        std::vector<float> x(n);
        for (float& value : x) value = normal(random);
        CHECK(kernels.largest_of_finite(x.data(), n) == *std::max_element(x.begin(), x.end()));
        for (const float least : {-10.0f, 0.0f, 2.0f, x[0], 10.0f}) {
            std::vector<std::uint32_t> wanted, found(n);
            for (std::uint32_t i = 0; i < n; ++i) {
                if (x[i] >= least) wanted.push_back(i);
            }
            found.resize(kernels.find_at_least(x.data(), n, least, found.data()));
            CHECK(found == wanted);
        }
        for (const float broken : {NAN, -NAN, INFINITY, -INFINITY}) {
            for (const std::size_t place : {std::size_t{0}, n / 2, n - 1}) {
                const float kept = std::exchange(x[place], broken);
                CHECK(std::isnan(kernels.largest_of_finite(x.data(), n)));
                x[place] = kept;
            }
        }
    }
}

void all_agree(const Kernels& kernels) {
    products_agree(kernels);
    quantizing_agrees(kernels);
    scores_are_found(kernels);
}

}  // namespace

int main() {
    for (const auto* const* isa = facrt::kernels::available(); *isa != nullptr; ++isa) all_agree(**isa);
    for (const Kernels* emulated : emulated_kernels()) all_agree(*emulated);
}
