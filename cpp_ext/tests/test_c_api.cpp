#include <cmath>
#include <limits>
#include <string_view>

#include "check.hpp"
#include "facrt/facrt.h"
#include "facrt/speech_head.hpp"
#include "random_weights.hpp"

namespace {

using facrt::WeightFormat;
using Tokens = std::vector<std::int64_t>;

const facrt::SpeechHeadDims dims{40, 36, 50, 2, 4, 2, 12, 3, 104, 100, 0, 1e-6f, 1e4};

std::vector<float> hidden_states(std::size_t num_positions) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    std::vector<float> u(num_positions * dims.hidden_size);
    for (float& value : u) value = normal(random);
    return u;
}

// The head and the sampler of one test.
struct Handles {
    explicit Handles(const std::filesystem::path& path, facrt_speech_head_options options) {
        CHECK(facrt_speech_head_open(path.c_str(), &options, &head) == FACRT_OK);
        CHECK(facrt_sampler_create(5, &sampler) == FACRT_OK);
    }
    ~Handles() {
        facrt_speech_head_close(head);
        facrt_sampler_destroy(sampler);
    }
    facrt_speech_head* head = nullptr;
    facrt_sampler* sampler = nullptr;
};

facrt_speech_head_options options(std::size_t max_positions, std::int32_t cache = FACRT_CACHE_FP32) {
    facrt_speech_head_options result = facrt_default_speech_head_options();
    result.max_positions = max_positions;
    result.cache = cache;
    return result;
}

bool failed(facrt_status found, facrt_status wanted, std::string_view part) {
    const bool said = std::string_view(facrt_last_error()).find(part) != std::string_view::npos;
    if (found != wanted || !said) std::cerr << found << ": " << facrt_last_error() << "\n";
    return found == wanted && said;
}

void it_gives_what_the_class_gives() {
    const TemporaryFile file(RandomHead(dims, WeightFormat::int8).bytes());
    const std::vector<float> u = hidden_states(7);
    const facrt::SamplingOptions wanted_sampling{
        .temperature = 0.9f, .top_k = 50, .top_p = 0.95, .repetition_penalty = 1.1f};
    facrt::SpeechHeadLoop loop(file.path(), {.max_positions = 8, .cache = facrt::CacheFormat::int8});
    facrt::Sampler sampler(5);
    const Handles c(file.path(), options(8, FACRT_CACHE_INT8));
    const facrt_sampling_options sampling{0.9f, 50, 0.95, 1.1f, 0};
    const std::span<const float> rows(u);
    const std::size_t h = dims.hidden_size;

    Tokens wanted(3), found(3);
    loop.extend(rows.first(2 * h));
    loop.prefill(rows.subspan(2 * h, 3 * h), sampler, wanted_sampling, wanted);
    CHECK(facrt_speech_head_extend(c.head, u.data(), 2) == FACRT_OK);
    CHECK(facrt_speech_head_prefill(c.head, u.data() + 2 * h, 3, c.sampler, &sampling, found.data()) == FACRT_OK);
    CHECK(found == wanted);
    for (std::size_t i = 5; i < 7; ++i) {
        sampler.remember(wanted);
        CHECK(facrt_sampler_remember(c.sampler, found.data(), found.size()) == FACRT_OK);
        loop.group(rows.subspan(i * h, h), sampler, wanted_sampling, wanted);
        CHECK(facrt_speech_head_group(c.head, u.data() + i * h, c.sampler, &sampling, found.data()) == FACRT_OK);
        CHECK(found == wanted);
    }
    const float* logits = nullptr;
    CHECK(facrt_speech_head_logits(c.head, 2, &logits) == FACRT_OK);
    for (std::size_t k = 0; k < dims.codebook_size; ++k) CHECK(logits[k] == loop.logits(2)[k]);

    std::size_t num_positions = 0;
    CHECK(facrt_speech_head_truncate(c.head, 4) == FACRT_OK);
    CHECK(facrt_speech_head_num_positions(c.head, &num_positions) == FACRT_OK);
    CHECK(num_positions == 4);
    CHECK(facrt_sampler_forget(c.sampler) == FACRT_OK);

    facrt_speech_head_info info{};
    CHECK(facrt_speech_head_get_info(c.head, &info) == FACRT_OK);
    CHECK(info.hidden_size == 40 && info.group_size == 3 && info.codebook_size == 104 && info.max_positions == 8);
    CHECK(std::string_view(info.format) == "int8" && info.isa == loop.isa());
    CHECK(std::string_view(facrt_version()) == "0.1.0");
}

void every_mistake_has_its_status_and_sentence() {
    const TemporaryFile file(RandomHead(dims, WeightFormat::fp32).bytes());
    const std::string path = file.path().string();
    facrt_speech_head* none = nullptr;
    CHECK(failed(facrt_speech_head_open("/nonexistent", nullptr, &none), FACRT_SYSTEM_ERROR, "/nonexistent"));
    CHECK(failed(facrt_speech_head_open(nullptr, nullptr, &none), FACRT_BAD_ARGUMENT, "path is NULL"));
    CHECK(failed(facrt_speech_head_open(path.c_str(), nullptr, nullptr), FACRT_BAD_ARGUMENT, "head is NULL"));
    facrt_speech_head_options given = options(0);
    CHECK(failed(facrt_speech_head_open(path.c_str(), &given, &none), FACRT_BAD_ARGUMENT, "max_positions 0"));
    given = options(8, 77);
    CHECK(failed(facrt_speech_head_open(path.c_str(), &given, &none), FACRT_BAD_ARGUMENT, "facrt_cache_format"));
    const TemporaryFile damaged({'F', 'A'});
    CHECK(failed(facrt_speech_head_open(damaged.path().c_str(), nullptr, &none), FACRT_BAD_FILE, "export the bundle"));
    CHECK(none == nullptr);

    const Handles c(file.path(), options(3));
    std::vector<float> u = hidden_states(4);
    Tokens tokens(3, -1);
    const auto prefill = [&](std::size_t num_positions) {
        return facrt_speech_head_prefill(c.head, u.data(), num_positions, c.sampler, nullptr, tokens.data());
    };
    CHECK(failed(prefill(4), FACRT_CACHE_FULL, "4 positions do not fit"));
    CHECK(failed(prefill(0), FACRT_BAD_ARGUMENT, "num_positions 0"));
    CHECK(failed(facrt_speech_head_group(c.head, u.data(), nullptr, nullptr, tokens.data()), FACRT_BAD_ARGUMENT,
                 "sampler is NULL"));
    CHECK(failed(facrt_speech_head_group(c.head, u.data(), c.sampler, nullptr, nullptr), FACRT_BAD_ARGUMENT,
                 "tokens is NULL"));
    CHECK(failed(facrt_speech_head_extend(nullptr, u.data(), 1), FACRT_BAD_ARGUMENT, "head is NULL"));
    facrt_sampling_options cold = facrt_default_sampling_options();
    cold.temperature = 0.0f;
    CHECK(failed(facrt_speech_head_group(c.head, u.data(), c.sampler, &cold, tokens.data()), FACRT_BAD_ARGUMENT,
                 "temperature"));
    u[1] = std::numeric_limits<float>::infinity();
    CHECK(failed(prefill(2), FACRT_BAD_ARGUMENT, "not finite"));
    CHECK(tokens == Tokens(3, -1));
    const float* logits = nullptr;
    CHECK(failed(facrt_speech_head_logits(c.head, 3, &logits), FACRT_BAD_ARGUMENT, "outside the group"));
    const std::int64_t stranger = -4;
    CHECK(failed(facrt_sampler_remember(c.sampler, &stranger, 1), FACRT_BAD_ARGUMENT, "-4"));
    std::size_t num_positions = 9;
    CHECK(facrt_speech_head_num_positions(c.head, &num_positions) == FACRT_OK);
    CHECK(num_positions == 0);
    facrt_speech_head_close(nullptr);
    facrt_sampler_destroy(nullptr);
}

}  // namespace

int main() {
    CHECK(std::string_view(facrt_last_error()).empty());
    it_gives_what_the_class_gives();
    every_mistake_has_its_status_and_sentence();
}
