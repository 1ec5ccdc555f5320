#include "facrt/sampler.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "kernels/kernels.hpp"
#include "radix_select.hpp"

namespace facrt {
namespace {

const kernels::Kernels& chosen_kernels() {
    static const kernels::Kernels& chosen = kernels::choose();
    return chosen;
}

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

// exp(x) for x <= 0 to 2 ulp, 0 below -87; written so that compilers vectorise it (Cephes' polynomial).
inline float exp_nonpositive(float x) {
    constexpr float round_magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    const float clamped = x < -87.0f ? -87.0f : x;
    const float shifted = clamped * 1.44269504088896341f + round_magic;
    const float power = shifted - round_magic;
    const float r = clamped - power * 0.693359375f + power * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    const std::uint32_t exponent = std::bit_cast<std::uint32_t>(shifted) - 0x4b400000u + 127u;
    const float result = (p * r * r + r + 1.0f) * std::bit_cast<float>(exponent << 23);
    return x < -87.0f ? 0.0f : result;
}

double sum(std::span<const float> values) {
    std::array<double, 8> lanes{};
    std::size_t i = 0;
    for (; i + lanes.size() <= values.size(); i += lanes.size()) {
        for (std::size_t l = 0; l < lanes.size(); ++l) lanes[l] += static_cast<double>(values[i + l]);
    }
    for (; i < values.size(); ++i) lanes[0] += static_cast<double>(values[i]);
    double total = 0.0;
    for (const double lane : lanes) total += lane;
    return total;
}

// Compares integers in the order of the floats: the reduction vectorises, and NaN lies beyond the infinities.
float largest_beside_infinities(std::span<const float> values) {
    constexpr auto order = [](std::int32_t bits) { return bits ^ ((bits >> 31) & 0x7fffffff); };
    std::int32_t least = std::numeric_limits<std::int32_t>::max();
    std::int32_t most = std::numeric_limits<std::int32_t>::min();
    for (std::size_t i = 0; i < values.size(); ++i) {
        const std::int32_t key = order(std::bit_cast<std::int32_t>(values[i]));
        least = key < least ? key : least;
        most = key > most ? key : most;
    }
    const float result = std::bit_cast<float>(order(most));
    const bool has_negative_nan = std::isnan(std::bit_cast<float>(order(least)));
    if (has_negative_nan || !std::isfinite(result)) {
        throw std::invalid_argument("logits are not finite: NaN, +inf, or nothing above -inf");
    }
    return result;
}

float largest(std::span<const float> values) {
    const float found = chosen_kernels().largest_of_finite(values.data(), values.size());
    return std::isfinite(found) ? found : largest_beside_infinities(values);
}

// Positive logits are divided, negative ones multiplied; in the order of the logits. Written without a branch, which
// would be guessed wrong as often as right.
float penalised(float logit, float penalty) {
    const float divided = logit / penalty, multiplied = logit * penalty;
    return penalty >= 1.0f ? std::min(divided, multiplied) : std::max(divided, multiplied);
}

// No logit below this is `least` or more, penalised or not.
float least_logit(float least, float penalty) {
    if (penalty >= 1.0f) return least;
    const float logit = least < 0.0f ? least / penalty : least * penalty;
    return logit - 1e-6f * std::abs(logit);
}

void check_options(const SamplingOptions& options) {
    const auto refuse = [](const char* name, double found, const char* allowed) {
        throw std::invalid_argument(std::string(name) + " " + std::to_string(found) + " must be " + allowed);
    };
    if (!(options.temperature > 0.0f)) refuse("temperature", options.temperature, "> 0");
    if (options.top_k < 0) refuse("top_k", static_cast<double>(options.top_k), ">= 0");
    if (!(options.top_p > 0.0 && options.top_p <= 1.0)) refuse("top_p", options.top_p, "> 0 and <= 1");
    if (!(options.repetition_penalty > 0.0f)) refuse("repetition_penalty", options.repetition_penalty, "> 0");
}

void check_ids(std::span<const std::int64_t> ids) {
    for (const std::int64_t id : ids) {
        if (id < 0 || id > Sampler::max_id) {
            throw std::out_of_range("id " + std::to_string(id) + " is outside 0 .. " + std::to_string(Sampler::max_id));
        }
    }
}

// How far below the largest, in units of the temperature, n scores together weigh less than 1.2e-7 of it: less than the
// 2 ulp to which a weight is known.
float negligible_after(std::size_t n) {
    return 16.0f + std::log(static_cast<float>(n));
}

float kth_largest(std::span<const float> scores, std::int64_t k, std::span<std::uint32_t> keys) {
    const auto one = [](float) { return 1.0; };
    return select_from_top(collect_keys(scores, minus_infinity, keys), static_cast<double>(k), one).threshold;
}

// weights = exp((score - peak) / temperature), 0 for scores below `least`; returns their sum.
double soften(std::span<const float> scores, float peak, float temperature, float least, std::span<float> weights) {
    for (std::size_t i = 0; i < scores.size(); ++i) {
        const float weight = exp_nonpositive((scores[i] - peak) / temperature);
        weights[i] = scores[i] >= least ? weight : 0.0f;
    }
    return sum(weights);
}

// Zeroes the weights outside the nucleus, the fewest from the top whose sum reaches top_p * total; returns their sum.
double keep_nucleus(std::span<float> weights, double total, double top_p, std::span<std::uint32_t> keys) {
    const double target = top_p * total;
    // All weights below this sum to less than (1 - top_p) * total: none of them is in the nucleus.
    const auto least = static_cast<float>((1.0 - top_p) * total / static_cast<double>(weights.size()) * 0.999);
    const auto weight_itself = [](float weight) { return double{weight}; };
    const Selection edge = select_from_top(collect_keys(weights, least, keys), target, weight_itself);
    for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = weights[i] >= edge.threshold ? weights[i] : 0.0f;
    if (edge.mass_tied > double{edge.threshold}) {
        double reached = edge.mass_before;
        for (std::size_t i = weights.size(); i-- > 0;) {
            if (weights[i] != edge.threshold) continue;
            if (reached >= target) weights[i] = 0.0f;
            reached += double{edge.threshold};
        }
    }
    return sum(weights);
}

}  // namespace

// Adds ids to a set until its end; those that were in it stay.
class Sampler::Added {
  public:
    Added(std::vector<std::uint8_t>& is_seen, std::span<const std::int64_t> ids) : is_seen_(is_seen) {
        for (const std::int64_t id : ids) {
            const auto i = static_cast<std::size_t>(id);
            if (i >= is_seen.size() || is_seen[i] != 0) continue;  // an id beyond the logits penalises nothing
            is_seen[i] = 1;
            added_.push_back(i);
        }
    }
    ~Added() {
        for (const std::size_t i : added_) is_seen_[i] = 0;
    }
    Added(const Added&) = delete;
    Added& operator=(const Added&) = delete;

  private:
    std::vector<std::uint8_t>& is_seen_;
    std::vector<std::size_t> added_;
};

void Sampler::remember(std::span<const std::int64_t> ids) {
    check_ids(ids);
    for (const std::int64_t id : ids) {
        const auto i = static_cast<std::size_t>(id);
        if (i >= is_seen_.size()) is_seen_.resize(i + 1);
        is_seen_[i] = 1;
    }
}

void Sampler::forget() {
    is_seen_.assign(is_seen_.size(), 0);
}

std::int64_t Sampler::draw(std::span<const float> weights, double total) {
    const double uniform = static_cast<double>(random_() >> 11) * 0x1p-53;
    const double target = uniform * total;
    double reached = 0.0;
    std::size_t i = 0;
    while (i < weights.size() && reached <= target) reached += double{weights[i++]};
    while (weights[i - 1] == 0.0f) --i;  // only when rounding left the sum short of the target
    return static_cast<std::int64_t>(ids_[i - 1]);
}

std::int64_t Sampler::pick(std::span<const float> logits, const SamplingOptions& options,
                           std::span<const std::int64_t> also_seen) {
    check_options(options);
    check_ids(also_seen);
    if (logits.empty()) throw std::invalid_argument("logits has 0 values, must have at least 1");

    make_room(logits.size());
    const Added added(is_seen_, also_seen);
    const float margin = options.greedy ? 0.0f : options.temperature * negligible_after(logits.size());
    const auto [peak, count] = keep_possible(logits, margin, options.repetition_penalty);
    const auto scores = std::span<const float>(scores_).first(count);
    if (options.greedy) {
        return static_cast<std::int64_t>(
            ids_[static_cast<std::size_t>(std::ranges::find(scores, peak) - scores.begin())]);
    }

    const auto weights = std::span(weights_).first(count);
    const bool has_top_k = options.top_k > 0 && options.top_k < std::ssize(scores);
    const float least = has_top_k ? kth_largest(scores, options.top_k, keys_) : minus_infinity;
    double total = soften(scores, peak, options.temperature, least, weights);
    if (options.top_p < 1.0) total = keep_nucleus(weights, total, options.top_p, keys_);
    return draw(weights, total);
}

void Sampler::make_room(std::size_t n) {
    if (is_seen_.size() < n) is_seen_.resize(n);
    if (ids_.size() >= n) return;
    ids_.resize(n);
    scores_.resize(n);
    weights_.resize(n);
    keys_.resize(n);
}

// Writes penalised logits to scores_, and whose they are to ids_: all within `margin` of the largest of them, and few
// others.
Sampler::Possible Sampler::keep_possible(std::span<const float> logits, float margin, float penalty) {
    float peak = largest(logits), expected = peak;
    std::size_t count = 0;
    do {  // again from a lower peak where the largest logits are penalised
        expected = peak;
        const float least = least_logit(expected - margin, penalty);
        count = chosen_kernels().find_at_least(logits.data(), logits.size(), least, ids_.data());
        penalise(logits, count, penalty);
        peak = largest(std::span<const float>(scores_).first(count));
    } while (peak < expected);
    return {peak, count};
}

// scores_ = the logits of the first `count` of ids_, penalised where they were seen.
void Sampler::penalise(std::span<const float> logits, std::size_t count, float penalty) {
    std::size_t num_seen = 0;
    for (std::size_t i = 0; i < count; ++i) {
        scores_[i] = logits[ids_[i]];
        keys_[num_seen] = static_cast<std::uint32_t>(i);
        num_seen += is_seen_[ids_[i]];
    }
    for (const std::uint32_t i : std::span<const std::uint32_t>(keys_).first(num_seen)) {
        scores_[i] = penalised(scores_[i], penalty);
    }
}

}  // namespace facrt
