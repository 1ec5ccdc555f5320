#include "facrt/backbone.hpp"

#include <cstdlib>
#include <limits>
#include <stdexcept>
#include <system_error>

#include "../src/kernels/kernels.hpp"
#include "check.hpp"
#include "random_weights.hpp"

namespace {

using facrt::WeightFormat;

constexpr std::uint32_t vocab_size = 301;
constexpr std::size_t prompt = 300;  // more than a block
const facrt::DecoderDims shapes[] = {
    {64, 96, 2, 4, 2, 16, 0, 1e-6f, 1e6},
    {36, 50, 3, 3, 1, 12, 1, 1e-6f, 1e4},  // nothing is a multiple of 16
};

struct Run {
    std::vector<float> hidden;  // of every position
    std::vector<float> logits;  // of every call
};

// A prompt, its beginning in a call of its own where `cached` says so, then two steps.
Run run(const std::filesystem::path& path, const facrt::BackboneOptions& options, std::size_t cached = 0) {
    facrt::Backbone backbone(path, options);
    const std::size_t h = backbone.dims().hidden_size;
    const std::vector<float> rows = normal_values((prompt + 2) * h);
    Run result;
    result.hidden.resize(rows.size());
    std::vector<float> logits(backbone.vocab_size());
    const auto forward = [&](std::size_t first, std::size_t count) {
        const auto hidden = std::span(result.hidden).subspan(first * h, count * h);
        backbone.forward(std::span(rows).subspan(first * h, count * h), hidden, logits);
    };
    const auto keep = [&] { result.logits.insert(result.logits.end(), logits.begin(), logits.end()); };
    if (cached > 0) forward(0, cached);
    forward(cached, prompt - cached);
    keep();
    for (std::size_t i = prompt; i < prompt + 2; ++i) {
        forward(i, 1);
        keep();
    }
    CHECK(backbone.num_positions() == prompt + 2);
    return result;
}

double relative_error(const std::vector<float>& found, const std::vector<float>& wanted) {
    double difference = 0.0, total = 0.0;
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        difference += std::pow(double{found[i]} - double{wanted[i]}, 2);
        total += std::pow(double{wanted[i]}, 2);
    }
    return std::sqrt(difference / total);
}

void threads_and_parts_change_no_bit() {
    for (const auto& dims : shapes) {
        for (const WeightFormat format : formats) {
            const TemporaryFile file(RandomBackbone(dims, vocab_size, format).bytes());
            const Run one = run(file.path(), {.num_threads = 1, .max_positions = 400});
            for (const std::size_t cached : {std::size_t{0}, std::size_t{1}, std::size_t{157}}) {
                const Run other = run(file.path(), {.num_threads = 3, .max_positions = prompt + 2}, cached);
                CHECK(other.hidden == one.hidden);
                CHECK(other.logits == one.logits);
            }
        }
    }
}

void every_instruction_set_agrees_with_the_portable_one() {
    for (const WeightFormat format : formats) {
        const TemporaryFile file(RandomBackbone(shapes[1], vocab_size, format).bytes());
        ::setenv("FACRT_ISA", "portable", 1);
        const Run wanted = run(file.path(), {.max_positions = 400});
        for (const auto* const* isa = facrt::kernels::available(); *isa != nullptr; ++isa) {
            ::setenv("FACRT_ISA", (*isa)->name, 1);
            const Run found = run(file.path(), {.max_positions = 400});
            // a rounding of an activation that falls the other way is a step of the integer grid
            const double limit = format >= WeightFormat::int8 ? 1e-2 : 2e-5;
            CHECK(relative_error(found.hidden, wanted.hidden) < limit);
            CHECK(relative_error(found.logits, wanted.logits) < limit);
        }
        ::unsetenv("FACRT_ISA");
    }
}

void smaller_caches_are_close() {
    using facrt::CacheFormat;
    const TemporaryFile file(RandomBackbone(shapes[0], vocab_size, WeightFormat::fp32).bytes());
    const Run whole = run(file.path(), {.max_positions = 400});
    for (const auto& [cache, limit] : {std::pair{CacheFormat::float16, 2e-3}, {CacheFormat::int8, 2e-2}}) {
        const Run smaller = run(file.path(), {.max_positions = 400, .cache = cache});
        CHECK(relative_error(smaller.hidden, whole.hidden) < limit);
        CHECK(smaller.hidden != whole.hidden);
    }
}

void it_starts_again_from_any_position() {
    const TemporaryFile file(RandomBackbone(shapes[0], vocab_size, WeightFormat::int8).bytes());
    facrt::Backbone backbone(file.path(), {.num_threads = 2, .max_positions = 8});
    const std::size_t h = backbone.dims().hidden_size;
    std::vector<float> rows = normal_values(8 * h), hidden(8 * h), logits(vocab_size), again(vocab_size), one(h);
    backbone.forward(rows, hidden, logits);
    CHECK(throws<std::length_error>([&] { backbone.forward(std::span(rows).first(h), one, again); }, "cache of 8"));
    backbone.truncate(5);
    backbone.forward(std::span(rows).subspan(5 * h), std::span(hidden).subspan(5 * h), again);
    CHECK(again == logits);

    backbone.truncate(7);
    std::vector<float> broken(rows.end() - static_cast<std::ptrdiff_t>(h), rows.end());
    broken[3] = std::numeric_limits<float>::quiet_NaN();
    CHECK(throws<std::invalid_argument>([&] { backbone.forward(broken, one, again); }, "embeds is not finite"));
    CHECK(backbone.num_positions() == 7);
    backbone.forward(std::span(rows).last(h), one, again);
    CHECK(again == logits);
}

void arguments_are_checked() {
    using std::invalid_argument;
    const TemporaryFile file(RandomBackbone(shapes[0], vocab_size, WeightFormat::fp32).bytes());
    CHECK(throws<invalid_argument>([&] { facrt::Backbone(file.path(), {.num_threads = 0}); }, "num_threads"));
    CHECK(throws<invalid_argument>([&] { facrt::Backbone(file.path(), {.max_positions = 0}); }, "max_positions"));
    facrt::Backbone backbone(file.path(), {.max_positions = 2});
    const std::vector<float> rows(64);
    std::vector<float> hidden(64), logits(vocab_size);
    CHECK(throws<invalid_argument>([&] { backbone.forward({}, {}, logits); }, "embeds has 0 values"));
    CHECK(throws<invalid_argument>([&] { backbone.forward(std::span(rows).first(63), hidden, logits); }, "row of 64"));
    CHECK(throws<invalid_argument>([&] { backbone.forward(rows, hidden, std::span(logits).first(300)); }, "300"));
    CHECK(backbone.cache_bytes_per_position() == 2 * 2 * 2 * 16 * 4);
}

void a_wrong_file_has_its_sentence() {
    const std::vector<char> whole = RandomBackbone(shapes[0], vocab_size, WeightFormat::int4_32).bytes();
    const auto refused = [](const std::vector<char>& bytes, const std::string& part) {
        const TemporaryFile file(bytes);
        CHECK(throws<std::runtime_error>([&] { facrt::BackboneFile{file.path()}; }, part));
    };
    refused({}, "ends within the header");
    refused(with(whole, 6, 'H'), "FACRTBB");
    refused(with(whole, 8, 2u), "version 2, version 1 is read");
    refused(with(whole, 16, 0u), "backbone file (hidden_size is 0)");
    refused(with(whole, 56, 0u), "vocab_size is 0");
    refused(with(whole, 56, 400u), "head has");
    refused(with(whole, 68, std::uint64_t{3}), "missing from the tensor table");
    CHECK(throws<std::system_error>([] { facrt::BackboneFile("/nonexistent"); }, "cannot open"));

    std::mt19937 random(11);
    for (int i = 0; i < 2000; ++i) {  // a refusal or a whole file, never a crash
        std::vector<char> bytes = whole;
        for (int change = 0; change < 3; ++change) bytes[random() % 500] = static_cast<char>(random());
        if (random() % 4 == 0) bytes.resize(random() % bytes.size());
        const TemporaryFile file(bytes);
        try {
            facrt::Backbone backbone(file.path(), {.max_positions = 2});
            std::vector<float> rows(backbone.dims().hidden_size, 0.5f), hidden(rows), logits(backbone.vocab_size());
            backbone.forward(rows, hidden, logits);
        } catch (const std::exception&) {
        }
    }
}

}  // namespace

int main() {
    threads_and_parts_change_no_bit();
    every_instruction_set_agrees_with_the_portable_one();
    smaller_caches_are_close();
    it_starts_again_from_any_position();
    arguments_are_checked();
    a_wrong_file_has_its_sentence();
}
