#include "facrt/backbone.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

#include "checks.hpp"
#include "decoder.hpp"
#include "facrt/thread_pool.hpp"
#include "sweep.hpp"

namespace facrt {
namespace {

constexpr std::size_t block_rows = 256;  // per pass over the weights: reading them is then little beside the products

}  // namespace

struct Backbone::State {
    State(const std::filesystem::path& path, const BackboneOptions& options)
        : file(path),
          kernels(kernels::choose()),
          max_positions(checked_positions(options.max_positions)),
          pool(options.num_threads),
          decoder(file.decoder, kernels, pool, std::min(block_rows, max_positions), max_positions, options.cache),
          last(1, file.dims().hidden_size, file.format() >= WeightFormat::int8),
          logits(1, file.vocab_size(), false) {}

    // Rows of embeds [num_rows, H] through the decoder and its norm -> hidden [num_rows, H].
    void run(const float* embeds, std::size_t num_rows, float* hidden) {
        const std::size_t cols = file.dims().hidden_size;
        for (std::size_t i = 0; i < num_rows; ++i) {
            std::memcpy(decoder.x.row(i), embeds + i * cols, cols * sizeof(float));
        }
        decoder.forward(num_rows);
        pool.run(num_rows, 1, [&](std::size_t i, std::size_t) {
            const float eps = file.dims().rms_norm_eps;
            kernels.rms_norm(decoder.x.row(i), file.norm.data(), cols, eps, hidden + i * cols);
        });
    }

    BackboneFile file;
    const kernels::Kernels& kernels;
    std::size_t max_positions;
    ThreadPool pool;
    Decoder decoder;
    Activations last;    // [1, H] the newest hidden state
    Activations logits;  // [1, V]
};

Backbone::Backbone(const std::filesystem::path& path, const BackboneOptions& options)
    : state_(std::make_unique<State>(path, options)) {}
Backbone::~Backbone() = default;
Backbone::Backbone(Backbone&&) noexcept = default;
Backbone& Backbone::operator=(Backbone&&) noexcept = default;

const DecoderDims& Backbone::dims() const {
    return state_->file.dims();
}

std::size_t Backbone::vocab_size() const {
    return state_->file.vocab_size();
}

WeightFormat Backbone::format() const {
    return state_->file.format();
}

std::string_view Backbone::isa() const {
    return state_->kernels.name;
}

std::size_t Backbone::num_positions() const {
    return state_->decoder.length();
}

std::size_t Backbone::max_positions() const {
    return state_->max_positions;
}

std::size_t Backbone::cache_bytes_per_position() const {
    return state_->decoder.cache_bytes_per_position();
}

void Backbone::forward(std::span<const float> embeds, std::span<float> hidden, std::span<float> logits) {
    State& s = *state_;
    const std::size_t cols = dims().hidden_size, num_rows = checked_rows("embeds", embeds, cols);
    if (hidden.size() != embeds.size() || logits.size() != vocab_size()) {
        throw std::invalid_argument("hidden and logits have room for " + std::to_string(hidden.size()) + " and " +
                                    std::to_string(logits.size()) + ", must have for " + std::to_string(embeds.size()) +
                                    " and " + std::to_string(vocab_size()));
    }
    check_room(num_positions() + num_rows, s.max_positions);
    const std::size_t block = std::min(block_rows, s.max_positions);
    for (std::size_t first = 0; first < num_rows; first += block) {
        const std::size_t count = std::min(block, num_rows - first);
        s.run(embeds.data() + first * cols, count, hidden.data() + first * cols);
    }
    std::memcpy(s.last.row(0), hidden.data() + (num_rows - 1) * cols, cols * sizeof(float));
    s.last.quantize(0, s.kernels);
    s.decoder.multiply(s.file.head, s.last.rows(1), s.logits, [](std::size_t, float*, std::size_t) {});
    std::memcpy(logits.data(), s.logits.row(0), logits.size_bytes());
}

void Backbone::truncate(std::size_t position) {
    state_->decoder.truncate(position);
}

std::uint64_t Backbone::read_weights() {
    return read_all(state_->file.bytes(), state_->pool, state_->kernels);
}

}  // namespace facrt
