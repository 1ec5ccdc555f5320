#pragma once

#include <span>
#include <stdexcept>
#include <string>

namespace facrt {

// Of a cache, 1 .. 2^24; else std::invalid_argument.
inline std::size_t checked_positions(std::size_t max_positions) {
    constexpr std::size_t most_positions = std::size_t{1} << 24;
    if (max_positions < 1 || max_positions > most_positions) {
        throw std::invalid_argument("max_positions " + std::to_string(max_positions) + " must be 1 .. " +
                                    std::to_string(most_positions));
    }
    return max_positions;
}

// At least one row of `cols` finite values, or std::invalid_argument; returns how many rows.
inline std::size_t checked_rows(const char* name, std::span<const float> values, std::size_t cols) {
    if (values.empty() || values.size() % cols != 0) {
        throw std::invalid_argument(std::string(name) + " has " + std::to_string(values.size()) +
                                    " values, must have at least one row of " + std::to_string(cols));
    }
    float nothing = 0.0f;
    for (const float value : values) nothing += value * 0.0f;
    if (nothing != 0.0f) throw std::invalid_argument(std::string(name) + " is not finite: it holds NaN or infinity");
    return values.size() / cols;
}

// std::length_error where a cache of `max_positions` has no room for so many.
inline void check_room(std::size_t num_positions, std::size_t max_positions) {
    if (num_positions > max_positions) {
        throw std::length_error(std::to_string(num_positions) + " positions do not fit the cache of " +
                                std::to_string(max_positions));
    }
}

}  // namespace facrt
