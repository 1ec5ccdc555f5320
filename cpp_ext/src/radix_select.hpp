#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>

namespace facrt {

// Unsigned integers in the order of the floats they come from (no NaN).
constexpr std::uint32_t ordered_bits(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    return bits ^ ((bits >> 31) != 0 ? 0xffffffffu : 0x80000000u);
}

constexpr float from_ordered_bits(std::uint32_t key) {
    return std::bit_cast<float>(key ^ ((key >> 31) != 0 ? 0x80000000u : 0xffffffffu));
}

// Writes the ordered bits of the values that are at least `least` into keys, which has room for all, and returns these.
inline std::span<std::uint32_t> collect_keys(std::span<const float> values, float least,
                                             std::span<std::uint32_t> keys) {
    std::size_t count = 0;
    for (const float value : values) {
        keys[count] = ordered_bits(value);
        count += value >= least ? 1 : 0;
    }
    return keys.first(count);
}

// Where the mass of values, taken from the largest down, reaches a target.
struct Selection {
    float threshold;     // the last value taken
    double mass_before;  // of all values above the threshold, < target
    double mass_tied;    // of all values equal to the threshold
};

// Three passes over the bits of the keys, from the top, each over the keys that the last one left in doubt: O(n)
// whatever the values. mass(value) >= 0; target > 0 is reached by all the keys together. Overwrites keys.
template <class Mass>
Selection select_from_top(std::span<std::uint32_t> keys, double target, Mass mass) {
    std::array<double, 2048> bins;
    std::uint32_t threshold = 0, chosen = 0;
    double before = 0.0;
    for (const unsigned shift : {21u, 10u, 0u}) {
        const std::uint32_t bin_mask = shift == 0 ? 0x3ffu : 0x7ffu;
        bins.fill(0.0);
        for (const std::uint32_t key : keys) bins[(key >> shift) & bin_mask] += mass(from_ordered_bits(key));
        double reached = before;
        for (std::uint32_t bin = bin_mask + 1; bin-- > 0 && reached < target;) {
            if (bins[bin] > 0.0) {
                chosen = bin;
                before = reached;
                reached += bins[bin];
            }
        }
        threshold |= chosen << shift;
        std::size_t count = 0;
        for (const std::uint32_t key : keys) {
            keys[count] = key;
            count += ((key >> shift) & bin_mask) == chosen ? 1 : 0;
        }
        keys = keys.first(count);
    }
    return {from_ordered_bits(threshold), before, bins[chosen]};
}

}  // namespace facrt
