#include <numeric>
#include <stdexcept>
#include <vector>

#include "check.hpp"
#include "facrt/hidden_split.hpp"

namespace {

void rows_are_sub_vectors_plus_previous() {
    const std::size_t positions = 4, group = 3, hidden = 5;
    std::vector<float> upsampled(positions * group * hidden), previous(hidden);
    std::iota(upsampled.begin(), upsampled.end(), 0.0f);
    std::iota(previous.begin(), previous.end(), 1000.0f);
    CHECK(facrt::split_prefill_rows(4, 3) == 10);
    std::vector<float> out(10 * hidden), step(hidden);
    facrt::split_prefill(upsampled, previous, 3, out);
    for (std::size_t i = 0; i < out.size(); ++i) CHECK(out[i] == upsampled[i] + previous[i % hidden]);

    facrt::split_step(std::span(upsampled).last(group * hidden), 2, previous, step);
    for (std::size_t c = 0; c < hidden; ++c) CHECK(step[c] == upsampled[upsampled.size() - hidden + c] + previous[c]);
}

void shapes_are_checked() {
    using std::invalid_argument, std::out_of_range;
    const std::vector<float> upsampled(12), previous(2);
    std::vector<float> out(8), one(2);
    facrt::split_prefill(upsampled, previous, 3, out);
    CHECK(throws<invalid_argument>([&] { facrt::split_prefill(upsampled, previous, 4, out); }, "group_size 4 x 2"));
    CHECK(throws<invalid_argument>([&] { facrt::split_prefill(upsampled, previous, 0, out); }, "group_size 0"));
    CHECK(throws<invalid_argument>([&] { facrt::split_prefill(upsampled, {}, 3, out); }, "x 0 values"));
    CHECK(throws<invalid_argument>([&] { facrt::split_prefill(upsampled, previous, 3, one); }, "must have 8"));
    CHECK(throws<invalid_argument>([&] { facrt::split_step(upsampled, 0, previous, out); }, "out 8"));
    CHECK(throws<out_of_range>([&] { facrt::split_step(upsampled, 6, previous, one); }, "outside 0 .. 5"));
    CHECK(throws<out_of_range>([&] { facrt::split_step(upsampled, -1, previous, one); }, "outside 0 .. 5"));
    CHECK(throws<invalid_argument>([] { facrt::split_prefill_rows(0, 5); }, "must be >= 1"));
}

}  // namespace

int main() {
    rows_are_sub_vectors_plus_previous();
    shapes_are_checked();
}
