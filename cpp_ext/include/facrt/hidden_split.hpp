#pragma once

#include <cstdint>
#include <span>

namespace facrt {

// The speech head's inputs, cut out of the upsampled hidden state.  SEMANTICS.md 4
// H is previous.size(); a shape that does not fit throws std::invalid_argument.

// upsampled: [T, group_size * H], previous: [H], out: [T * group_size - (group_size - 1), H];
// out[j] = sub-vector j of the flattened input + previous.
void split_prefill(std::span<const float> upsampled, std::span<const float> previous, std::int64_t group_size,
                   std::span<float> out);

// Rows of split_prefill's result: T * group_size - (group_size - 1).
std::int64_t split_prefill_rows(std::int64_t num_positions, std::int64_t group_size);

// upsampled: [group_size * H], previous and out: [H]; out = sub-vector `index` + previous; out may be previous.
void split_step(std::span<const float> upsampled, std::int64_t index, std::span<const float> previous,
                std::span<float> out);

}  // namespace facrt
