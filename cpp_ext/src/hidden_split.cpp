#include "facrt/hidden_split.hpp"

#include <stdexcept>
#include <string>

namespace facrt {
namespace {

void add(const float* left, const float* right, float* out, std::size_t size) {
    for (std::size_t c = 0; c < size; ++c) out[c] = left[c] + right[c];
}

}  // namespace

std::int64_t split_prefill_rows(std::int64_t num_positions, std::int64_t group_size) {
    if (num_positions < 1 || group_size < 1) {
        throw std::invalid_argument("positions " + std::to_string(num_positions) + ", group_size " +
                                    std::to_string(group_size) + ": both must be >= 1");
    }
    return num_positions * group_size - (group_size - 1);
}

void split_prefill(std::span<const float> upsampled, std::span<const float> previous, std::int64_t group_size,
                   std::span<float> out) {
    const std::size_t hidden = previous.size();
    const std::size_t num_vectors = hidden > 0 ? upsampled.size() / hidden : 0;
    if (num_vectors == 0 || upsampled.size() % hidden != 0 || group_size < 1 ||
        num_vectors % static_cast<std::size_t>(group_size) != 0) {
        throw std::invalid_argument("upsampled has " + std::to_string(upsampled.size()) +
                                    " values, must be rows of group_size " + std::to_string(group_size) + " x " +
                                    std::to_string(hidden) + " values");
    }
    const std::size_t num_rows = num_vectors - static_cast<std::size_t>(group_size - 1);
    if (out.size() != num_rows * hidden) {
        throw std::invalid_argument("out has " + std::to_string(out.size()) + " values, must have " +
                                    std::to_string(num_rows * hidden));
    }
    for (std::size_t j = 0; j < num_rows; ++j) {
        add(upsampled.data() + j * hidden, previous.data(), out.data() + j * hidden, hidden);
    }
}

void split_step(std::span<const float> upsampled, std::int64_t index, std::span<const float> previous,
                std::span<float> out) {
    const std::size_t hidden = previous.size();
    if (hidden == 0 || out.size() != hidden || upsampled.size() % hidden != 0) {
        throw std::invalid_argument("upsampled has " + std::to_string(upsampled.size()) + " values, previous " +
                                    std::to_string(hidden) + ", out " + std::to_string(out.size()) +
                                    ": out must be as long as previous, and upsampled a multiple of it");
    }
    const auto group_size = static_cast<std::int64_t>(upsampled.size() / hidden);
    if (index < 0 || index >= group_size) {
        throw std::out_of_range("index " + std::to_string(index) + " is outside 0 .. " +
                                std::to_string(group_size - 1));
    }
    add(upsampled.data() + static_cast<std::size_t>(index) * hidden, previous.data(), out.data(), hidden);
}

}  // namespace facrt
