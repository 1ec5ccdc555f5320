#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace facrt {

struct SamplingOptions {
    float temperature = 1.0f;         // > 0
    std::int64_t top_k = 0;           // >= 0, 0 = off
    double top_p = 1.0;               // 0 < top_p <= 1, 1 = off
    float repetition_penalty = 1.0f;  // > 0, 1 = off
    bool greedy = false;  // the largest penalised logit, the first of equals; temperature, top-k, top-p unused
};

// Picks ids as Hugging Face's processors do: repetition penalty, temperature, top-k, top-p, one multinomial draw.
// SEMANTICS.md 5. A sampler has state and belongs to one thread at a time.
class Sampler {
  public:
    static constexpr std::int64_t max_id = (std::int64_t{1} << 24) - 1;  // bounds the table of seen ids

    explicit Sampler(std::uint64_t seed) : random_(seed) {}

    void reseed(std::uint64_t seed) { random_.seed(seed); }

    // Adds ids [n] to the set that the repetition penalty applies to; std::out_of_range outside 0 .. max_id.
    void remember(std::span<const std::int64_t> ids);
    void forget();

    // logits: [V]; also_seen: [m] counts as remembered for this pick only; returns an id in 0 .. V-1.
    // Draws by inverse CDF in the order of ids, one 53-bit uniform per pick; ties at top-k's edge all stay, at top-p's
    // edge the higher ids stay. Ids that all together weigh less than 1.2e-7 of the likeliest are never drawn. Throws
    // std::invalid_argument for NaN, +inf, all -inf, or an option out of range.
    std::int64_t pick(std::span<const float> logits, const SamplingOptions& options,
                      std::span<const std::int64_t> also_seen = {});

  private:
    class Added;
    struct Possible {
        float peak;
        std::size_t count;
    };

    void make_room(std::size_t n);
    Possible keep_possible(std::span<const float> logits, float margin, float penalty);
    void penalise(std::span<const float> logits, std::size_t count, float penalty);
    std::int64_t draw(std::span<const float> weights, double total);

    std::mt19937_64 random_;
    std::vector<std::uint8_t> is_seen_;  // [largest remembered id + 1, or V]
    std::vector<float> scores_;          // first the penalised logits that may be picked; all of these have room for V
    std::vector<std::uint32_t> ids_;     // whose these are
    std::vector<float> weights_;         // their probabilities, up to a common factor
    std::vector<std::uint32_t> keys_;    // scratch of the selections
};

}  // namespace facrt
