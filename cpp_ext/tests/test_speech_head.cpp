#include <cstdlib>
#include <limits>
#include <stdexcept>

#include "../src/kernels/kernels.hpp"
#include "check.hpp"
#include "facrt/speech_head.hpp"
#include "random_weights.hpp"

namespace {

using facrt::WeightFormat;
using Tokens = std::vector<std::int64_t>;

const facrt::SpeechHeadDims shapes[] = {
    {64, 48, 96, 2, 4, 2, 16, 5, 200, 197, 0, 1e-6f, 1e6},
    {40, 36, 50, 3, 3, 1, 12, 3, 104, 100, 1, 1e-6f, 1e4},  // nothing is a multiple of 16
    {32, 96, 64, 1, 40, 2, 6, 1, 17, 3, 0, 1e-6f, 1e4},     // 20 query heads to a KV head
};

struct Run {
    Tokens tokens;
    std::vector<float> logits;
};

// A prompt of so many positions, the first `cached` of them in advance, then two groups.
Run run(const std::filesystem::path& path, const facrt::SpeechHeadOptions& options, std::size_t cached = 0,
        std::size_t prompt = 50) {
    facrt::SpeechHeadLoop loop(path, options);
    const std::size_t h = loop.dims().hidden_size, group_size = loop.dims().group_size;
    const std::vector<float> u = normal_values((prompt + 2) * h);
    facrt::Sampler sampler(5);
    const facrt::SamplingOptions sampling{.temperature = 0.9f, .top_p = 0.95, .repetition_penalty = 1.1f};
    Run result;
    Tokens tokens(group_size);
    const auto keep = [&] {
        result.tokens.insert(result.tokens.end(), tokens.begin(), tokens.end());
        for (std::size_t i = 0; i < group_size; ++i) {
            const auto row = loop.logits(i);
            result.logits.insert(result.logits.end(), row.begin(), row.end());
        }
    };
    if (cached > 0) loop.extend(std::span(u).first(cached * h));
    loop.prefill(std::span(u).subspan(cached * h, (prompt - cached) * h), sampler, sampling, tokens);
    keep();
    for (std::size_t i = prompt; i < prompt + 2; ++i) {
        loop.group(std::span(u).subspan(i * h, h), sampler, sampling, tokens);
        keep();
    }
    CHECK(loop.num_positions() == prompt + 2);
    return result;
}

void threads_and_cached_prompts_change_no_bit() {
    for (const auto& dims : shapes) {
        for (const WeightFormat format : formats) {
            const TemporaryFile file(RandomHead(dims, format).bytes());
            const Run one = run(file.path(), {.num_threads = 1, .max_positions = 60});
            for (const std::size_t num_threads : {2, 3, 7}) {
                const Run other = run(file.path(), {.num_threads = num_threads, .max_positions = 53});
                CHECK(other.tokens == one.tokens);
                CHECK(other.logits == one.logits);
            }
            const Run cached = run(file.path(), {.num_threads = 2, .max_positions = 52}, 27);
            CHECK(cached.tokens == one.tokens);
            CHECK(cached.logits == one.logits);
        }
    }
}

void blocks_of_a_long_prompt_change_no_bit() {
    for (const auto& dims : std::span(shapes).first(2)) {  // 128 and 208 positions to a block
        for (const WeightFormat format : {WeightFormat::fp32, WeightFormat::int8}) {
            const TemporaryFile file(RandomHead(dims, format).bytes());
            const Run one = run(file.path(), {.num_threads = 2, .max_positions = 300}, 0, 230);
            const Run cached = run(file.path(), {.num_threads = 2, .max_positions = 300}, 60, 230);
            CHECK(cached.tokens == one.tokens);
            CHECK(cached.logits == one.logits);
        }
    }
}

double relative_error(const Run& found, const Run& wanted, std::size_t group_size, std::size_t num_logits) {
    double difference = 0.0, total = 0.0;  // up to the first token that differs
    for (std::size_t i = 0; i < 3 * group_size; ++i) {
        for (std::size_t k = i * num_logits; k < (i + 1) * num_logits; ++k) {
            difference += std::pow(double{found.logits[k]} - double{wanted.logits[k]}, 2);
            total += std::pow(double{wanted.logits[k]}, 2);
        }
        if (found.tokens[i] != wanted.tokens[i]) break;
    }
    return std::sqrt(difference / total);
}

void every_instruction_set_agrees_with_the_portable_one() {
    for (const auto& dims : shapes) {
        for (const WeightFormat format : formats) {
            const TemporaryFile file(RandomHead(dims, format).bytes());
            ::setenv("FACRT_ISA", "portable", 1);
            const Run wanted = run(file.path(), {.max_positions = 52});
            for (const auto* const* isa = facrt::kernels::available(); *isa != nullptr; ++isa) {
                ::setenv("FACRT_ISA", (*isa)->name, 1);
                const Run found = run(file.path(), {.max_positions = 52});
                // a rounding of an activation that falls the other way is a step of the integer grid
                const double limit = format >= WeightFormat::int8 ? 1e-2 : 2e-5;
                const double error = relative_error(found, wanted, dims.group_size, dims.codebook_size);
                if (error > limit) std::cerr << (*isa)->name << " " << facrt::name_of(format) << " " << error << "\n";
                CHECK(error <= limit);
            }
            ::unsetenv("FACRT_ISA");
        }
    }
    ::setenv("FACRT_ISA", "abacus", 1);
    const TemporaryFile file(RandomHead(shapes[1], WeightFormat::int8).bytes());
    CHECK(throws<std::runtime_error>([&] { facrt::SpeechHeadLoop(file.path(), {}); }, "portable"));
    ::unsetenv("FACRT_ISA");
}

void smaller_caches_are_close() {
    using facrt::CacheFormat;
    for (const auto& dims : shapes) {
        const TemporaryFile file(RandomHead(dims, WeightFormat::fp32).bytes());
        const Run whole = run(file.path(), {.max_positions = 52});
        for (const auto& [cache, limit] : {std::pair{CacheFormat::float16, 2e-3}, {CacheFormat::int8, 2e-2}}) {
            const Run smaller = run(file.path(), {.max_positions = 52, .cache = cache});
            CHECK(relative_error(smaller, whole, dims.group_size, dims.codebook_size) < limit);
            CHECK(smaller.logits != whole.logits);
            const Run other = run(file.path(), {.num_threads = 3, .max_positions = 60, .cache = cache}, 27);
            CHECK(other.tokens == smaller.tokens);
            CHECK(other.logits == smaller.logits);
        }
    }
}

void a_cache_has_the_bytes_it_says() {
    const TemporaryFile file(RandomHead(shapes[0], WeightFormat::fp32).bytes());
    const auto bytes = [&](facrt::CacheFormat cache) {
        return facrt::SpeechHeadLoop(file.path(), {.max_positions = 2, .cache = cache}).cache_bytes_per_position();
    };
    const std::size_t numbers = 5 * 2 * 2 * 2 * 16;  // group, layers, KV heads, key and value, head_dim
    CHECK(bytes(facrt::CacheFormat::float32) == 4 * numbers);
    CHECK(bytes(facrt::CacheFormat::float16) == 2 * numbers);
    CHECK(bytes(facrt::CacheFormat::int8) == numbers + 5 * 2 * 2 * 2 * 4);
    CHECK(facrt::cache_format_from_name("int8") == facrt::CacheFormat::int8);
    CHECK(throws<std::invalid_argument>([] { facrt::cache_format_from_name("int2"); }, "fp32, fp16 or int8"));
}

void it_starts_again_from_any_position() {
    const TemporaryFile file(RandomHead(shapes[0], WeightFormat::int8).bytes());
    facrt::SpeechHeadLoop loop(file.path(), {.num_threads = 2, .max_positions = 12});
    const std::size_t h = loop.dims().hidden_size;
    const std::vector<float> u = normal_values(8 * h);
    const facrt::SamplingOptions greedy{.greedy = true};
    facrt::Sampler sampler(0);
    std::vector<Tokens> wanted;
    const auto group = [&](std::size_t i) {
        Tokens tokens(5);
        loop.group(std::span(u).subspan(i * h, h), sampler, greedy, tokens);
        return tokens;
    };
    Tokens first(5);
    loop.prefill(std::span(u).first(4 * h), sampler, greedy, first);
    for (std::size_t i = 4; i < 8; ++i) wanted.push_back(group(i));
    loop.truncate(6);
    CHECK(group(6) == wanted[2]);
    loop.truncate(4);
    for (std::size_t i = 4; i < 8; ++i) CHECK(group(i) == wanted[i - 4]);

    std::vector<float> broken(u.begin(), u.begin() + static_cast<std::ptrdiff_t>(h));
    broken[3] = std::numeric_limits<float>::quiet_NaN();
    loop.truncate(6);
    Tokens tokens(5);
    CHECK(throws<std::invalid_argument>([&] { loop.group(broken, sampler, greedy, tokens); }, "u is not finite"));
    CHECK(loop.num_positions() == 6);
    CHECK(group(6) == wanted[2]);

    loop.reset();
    Tokens again(5);
    loop.prefill(std::span(u).first(4 * h), sampler, greedy, again);
    CHECK(again == first);
}

void arguments_are_checked() {
    using std::invalid_argument;
    const TemporaryFile file(RandomHead(shapes[0], WeightFormat::fp32).bytes());
    CHECK(throws<invalid_argument>([&] { facrt::SpeechHeadLoop(file.path(), {.num_threads = 0}); }, "num_threads"));
    CHECK(throws<invalid_argument>([&] { facrt::SpeechHeadLoop(file.path(), {.max_positions = 0}); }, "max_positions"));
    facrt::SpeechHeadLoop loop(file.path(), {.max_positions = 2});
    facrt::Sampler sampler(0);
    const std::vector<float> u(3 * 64);
    Tokens tokens(5), few(4);
    CHECK(throws<invalid_argument>([&] { loop.prefill({}, sampler, {}, tokens); }, "u has 0 values"));
    CHECK(throws<invalid_argument>([&] { loop.group(std::span(u).first(63), sampler, {}, tokens); }, "row of 64"));
    CHECK(throws<invalid_argument>([&] { loop.group(std::span(u).first(64), sampler, {}, few); }, "room for 4"));
    CHECK(throws<std::length_error>([&] { loop.prefill(u, sampler, {}, tokens); }, "cache of 2"));
    CHECK(throws<std::out_of_range>([&] { static_cast<void>(loop.logits(5)); }, "outside the group"));
}

}  // namespace

int main() {
    threads_and_cached_prompts_change_no_bit();
    blocks_of_a_long_prompt_change_no_bit();
    every_instruction_set_agrees_with_the_portable_one();
    smaller_caches_are_close();
    a_cache_has_the_bytes_it_says();
    it_starts_again_from_any_position();
    arguments_are_checked();
}
