#include "facrt/hidden_split.hpp"

#include <stdexcept>
#include <string>

#include "arrays.hpp"
#include "bindings.hpp"

namespace facrt::bindings {

using namespace nb::literals;

void add_hidden_split(nb::module_& m) {
    m.def(
        "split_prefill",
        [](const FloatRows& upsampled, const Floats& previous, std::int64_t group_size) {
            const std::size_t hidden = previous.size();
            if (group_size < 1 || hidden == 0 || upsampled.shape(1) % hidden != 0 ||
                upsampled.shape(1) / hidden != static_cast<std::size_t>(group_size)) {
                throw std::invalid_argument("upsampled has " + std::to_string(upsampled.shape(1)) +
                                            " columns, must have group_size " + std::to_string(group_size) + " x " +
                                            std::to_string(hidden));
            }
            const std::int64_t rows = split_prefill_rows(static_cast<std::int64_t>(upsampled.shape(0)), group_size);
            return make_array({static_cast<std::size_t>(rows), hidden}, [&](std::span<float> out) {
                split_prefill(view(upsampled), view(previous), group_size, out);
            });
        },
        "upsampled"_a.noconvert(), "previous"_a.noconvert(), "group_size"_a,
        R"(The speech head's first inputs, cut out of the upsampled hidden state of T positions.

upsampled: [T, group_size * H], previous: [H]. Returns [T * group_size - (group_size - 1), H]: row j is
sub-vector j of the flattened input plus previous. Raises ValueError for other shapes.
Source: SEMANTICS.md 4.)");
    m.def(
        "split_step_into",
        [](const Floats& upsampled, std::int64_t index, const Floats& previous, const OutFloats& out) {
            const nb::gil_scoped_release unlocked;
            split_step(view(upsampled), index, view(previous), view(out));
        },
        "upsampled"_a.noconvert(), "index"_a, "previous"_a.noconvert(), "out"_a.noconvert(),
        R"(out = sub-vector `index` of upsampled + previous.

upsampled: [group_size * H], previous and out: [H]; out may be previous. Raises ValueError for other shapes,
IndexError for an index outside 0 .. group_size - 1. Source: SEMANTICS.md 4.)");
}

}  // namespace facrt::bindings
