#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <vector>

#include "check.hpp"
#include "facrt/sampler.hpp"

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

// Chi-square of num_picks picks against `weights`, over the values with a weight; a pick of another value fails.
double chi_square(const std::vector<float>& logits, const facrt::SamplingOptions& options,
                  const std::vector<double>& weights) {
    constexpr int num_picks = 20000;
    facrt::Sampler sampler(1234);
    std::vector<int> counts(logits.size());
    for (int n = 0; n < num_picks; ++n) ++counts[static_cast<std::size_t>(sampler.pick(logits, options))];
    double total = 0.0, result = 0.0;
    for (const double weight : weights) total += weight;
    for (std::size_t i = 0; i < weights.size(); ++i) {
        const double expected = num_picks * weights[i] / total;
        CHECK(expected > 0.0 || counts[i] == 0);
        if (expected > 0.0) result += (counts[i] - expected) * (counts[i] - expected) / expected;
    }
    return result;
}

void draws_follow_the_probabilities() {
    const std::vector<float> logits{0.0f, 1.0f, -infinity, 2.0f, 1.5f, -1.0f};
    std::vector<double> weights;
    for (const float logit : logits) weights.push_back(std::exp(double{logit}));
    CHECK(chi_square(logits, {}, weights) < 18.5);  // 99.9 % of chi-square(4)
    for (double& weight : weights) weight *= weight;
    CHECK(chi_square(logits, {.temperature = 0.5f}, weights) < 18.5);
}

void top_k_and_top_p_keep_what_they_should() {
    const std::vector<float> logits{3.0f, 1.0f, 2.0f, 2.0f, -4.0f};
    const double e1 = std::exp(1.0), e2 = std::exp(2.0), e3 = std::exp(3.0);
    CHECK(chi_square(logits, {.top_k = 2}, {e3, 0, e2, e2, 0}) < 13.8);   // equals at the edge all stay
    CHECK(chi_square(logits, {.top_p = 0.6}, {e3, 0, 0, e2, 0}) < 10.8);  // of equals the higher id stays
    CHECK(chi_square(logits, {.top_p = 0.8}, {e3, 0, e2, e2, 0}) < 13.8);
    CHECK(chi_square(logits, {.top_p = 0.97}, {e3, e1, e2, e2, 0}) < 16.3);
    CHECK(chi_square(logits, {.top_p = 1e-9}, {1, 0, 0, 0, 0}) == 0.0);
    CHECK(chi_square(logits, {.top_k = 1}, {1, 0, 0, 0, 0}) == 0.0);
    CHECK(chi_square(logits, {.temperature = 1e-42f}, {1, 0, 0, 0, 0}) == 0.0);
}

void seen_ids_are_penalised_once() {
    const std::vector<float> logits{2.0f, 1.9f, -1.0f, 1.8f};
    const facrt::SamplingOptions options{.repetition_penalty = 1.1f, .greedy = true};
    facrt::Sampler sampler(0);
    CHECK(sampler.pick(logits, options) == 0);
    sampler.remember(std::vector<std::int64_t>{0, 0, 1000});
    CHECK(sampler.pick(logits, options) == 1);
    CHECK(sampler.pick(logits, options, std::vector<std::int64_t>{1, 0, 1}) == 0);  // 1.82 and 1.73 against 1.8
    CHECK(sampler.pick(logits, options) == 1);
    sampler.forget();
    CHECK(sampler.pick(logits, options) == 0);
    const std::vector<float> negative{-1.0f, -1.05f};
    CHECK(sampler.pick(negative, options, std::vector<std::int64_t>{0}) == 1);
    CHECK(sampler.pick(std::vector<float>{1.0f, 2.0f, 2.0f}, {.greedy = true}) == 1);
}

// Long rows, part of them masked, the likeliest ids seen, penalties that lower and that raise: as if the row came
// penalised.
void seen_ids_are_picked_as_if_the_row_came_penalised() {
    for (const float penalty : {0.7f, 1.0f, 1.3f, 4.0f}) {
        for (std::size_t n = 500; n < 3000; n += 311) {
            std::vector<float> logits(n);
            std::vector<std::int64_t> seen;
            for (std::size_t i = 0; i < n; ++i) {
                logits[i] = 9.0f * std::sin(static_cast<float>(i * i % 1009));
                if (i >= 512 && i < 1100) logits[i] = -infinity;
                if (logits[i] > 7.0f && i % 5 != 0) seen.push_back(static_cast<std::int64_t>(i));
            }
            std::vector<float> penalised = logits;
            for (const std::int64_t id : seen) {
                float& logit = penalised[static_cast<std::size_t>(id)];
                logit = logit < 0.0f ? logit * penalty : logit / penalty;
            }
            const auto likeliest = std::max_element(penalised.begin(), penalised.end()) - penalised.begin();
            facrt::Sampler sampler(5), plain(5);
            sampler.remember(seen);
            CHECK(sampler.pick(logits, {.repetition_penalty = penalty, .greedy = true}) == likeliest);
            for (int i = 0; i < 20; ++i) {
                const facrt::SamplingOptions options{.temperature = 1.5f, .top_k = 40, .top_p = 0.95};
                facrt::SamplingOptions penalising = options;
                penalising.repetition_penalty = penalty;
                CHECK(sampler.pick(logits, penalising) == plain.pick(penalised, options));
            }
        }
    }
}

void same_seed_same_ids() {
    std::vector<float> logits(1000);
    for (std::size_t i = 0; i < logits.size(); ++i) logits[i] = std::sin(static_cast<float>(i));
    const auto picks = [&](facrt::Sampler& sampler) {
        std::vector<std::int64_t> ids;
        for (int n = 0; n < 50; ++n) ids.push_back(sampler.pick(logits, {.top_p = 0.9}));
        return ids;
    };
    facrt::Sampler left(7), right(7);
    const auto first = picks(left);
    CHECK(first == picks(right));
    CHECK(first != picks(left));
    left.reseed(7);
    CHECK(first == picks(left));
}

void faults_are_refused() {
    using std::invalid_argument, std::out_of_range;
    facrt::Sampler sampler(0);
    const std::vector<float> good{0.0f, 1.0f};
    const auto pick = [&](std::vector<float> logits, facrt::SamplingOptions options = {}) {
        return [&sampler, logits, options] { sampler.pick(logits, options); };
    };
    CHECK(throws<invalid_argument>(pick({0.0f, nan_value}), "logits are not finite"));
    CHECK(throws<invalid_argument>(pick({0.0f, -nan_value}), "logits are not finite"));
    CHECK(throws<invalid_argument>(pick({0.0f, infinity}), "logits are not finite"));
    CHECK(throws<invalid_argument>(pick({-infinity, -infinity}), "logits are not finite"));
    CHECK(throws<invalid_argument>(pick({}), "0 values"));
    CHECK(throws<invalid_argument>(pick(good, {.temperature = 0.0f}), "temperature"));
    CHECK(throws<invalid_argument>(pick(good, {.temperature = nan_value}), "temperature"));
    CHECK(throws<invalid_argument>(pick(good, {.top_k = -1}), "top_k"));
    CHECK(throws<invalid_argument>(pick(good, {.top_p = 0.0}), "top_p"));
    CHECK(throws<invalid_argument>(pick(good, {.top_p = 1.1}), "top_p"));
    CHECK(throws<invalid_argument>(pick(good, {.repetition_penalty = 0.0f}), "repetition_penalty"));
    const std::vector<std::int64_t> negative{-1}, huge{std::int64_t{1} << 40};
    CHECK(throws<out_of_range>([&] { sampler.remember(negative); }, "id -1"));
    CHECK(throws<out_of_range>([&] { sampler.remember(huge); }, "outside 0 .. 16777215"));
    CHECK(throws<out_of_range>([&] { sampler.pick(good, {}, negative); }, "id -1"));
}

}  // namespace

int main() {
    draws_follow_the_probabilities();
    top_k_and_top_p_keep_what_they_should();
    seen_ids_are_penalised_once();
    seen_ids_are_picked_as_if_the_row_came_penalised();
    same_seed_same_ids();
    faults_are_refused();
}
