#include "facrt/speech_head.hpp"

#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "checks.hpp"
#include "decoder.hpp"
#include "facrt/thread_pool.hpp"
#include "sweep.hpp"

namespace facrt {
namespace {

constexpr std::size_t prefill_rows = 640;  // sub-vectors per pass over the weights, about

std::size_t positions_per_block(const SpeechHeadDims& dims) {
    return std::max<std::size_t>(8, prefill_rows / dims.group_size / 8 * 8);  // kernels take 8 rows at once
}

}  // namespace

struct SpeechHeadLoop::State {
    State(const std::filesystem::path& path, const SpeechHeadOptions& options)
        : file(path),
          dims(file.dims()),
          kernels(kernels::choose()),
          max_positions(checked_positions(options.max_positions)),
          pool(options.num_threads),
          decoder(file.decoder, kernels, pool, positions_per_block(dims) * dims.group_size,
                  max_positions * dims.group_size, options.cache),
          u(positions_per_block(dims), dims.hidden_size, is_integer()),
          sub_vectors(positions_per_block(dims), std::size_t{dims.group_size} * dims.hidden_size, false),
          z(positions_per_block(dims) * dims.group_size, dims.hidden_size, is_integer()),
          last(1, dims.inner_size, is_integer()),
          projected(1, dims.hidden_size, is_integer()),
          logits(dims.group_size, dims.codebook_size, false),
          previous(dims.hidden_size) {
        condition_on_newest();
    }

    bool is_integer() const { return file.format() >= WeightFormat::int8; }

    std::size_t check(std::span<const float> in, std::size_t num_tokens) const {
        const std::size_t num_positions = checked_rows("u", in, dims.hidden_size);
        if (num_tokens != dims.group_size) {
            throw std::invalid_argument("tokens has room for " + std::to_string(num_tokens) + ", must have for " +
                                        std::to_string(dims.group_size));
        }
        check_room(last_tokens.size() + num_positions, max_positions);
        return num_positions;
    }

    // rows: [num_positions, H] -> sub_vectors
    void upsample(const float* rows, std::size_t num_positions) {
        for (std::size_t i = 0; i < num_positions; ++i) {
            std::memcpy(u.row(i), rows + i * dims.hidden_size, dims.hidden_size * sizeof(float));
        }
        decoder.quantize(u, num_positions);
        const auto add_bias = [&](std::size_t tile, float* y, std::size_t stride) {
            const std::size_t first = tile * kernels::tile_rows;
            const std::size_t count = std::min(kernels::tile_rows, file.upsample.rows - first);
            for (std::size_t i = 0; i < num_positions; ++i) {
                for (std::size_t c = 0; c < count; ++c) y[i * stride + c] += file.upsample_bias[first + c];
            }
        };
        decoder.multiply(file.upsample, u.rows(num_positions), sub_vectors, add_bias);
    }

    // Runs sub-vectors first .. first+num_rows-1 of the block through the transformer.
    void advance(std::size_t first, std::size_t num_rows) {
        for (std::size_t i = 0; i < num_rows; ++i) {
            const std::size_t index = first + i;
            const float* sub = sub_vectors.row(index / dims.group_size) + index % dims.group_size * dims.hidden_size;
            for (std::size_t c = 0; c < dims.hidden_size; ++c) z.row(i)[c] = sub[c] + previous[c];
        }
        decoder.quantize(z, num_rows);
        decoder.multiply(file.input, z.rows(num_rows), decoder.x, [](std::size_t, float*, std::size_t) {});
        decoder.forward(num_rows);
    }

    std::int64_t pick(std::size_t row, std::size_t i, Sampler& sampler, const SamplingOptions& options,
                      std::span<std::int64_t> tokens) {
        const auto nothing = [](std::size_t, float*, std::size_t) {};
        kernels.rms_norm(decoder.x.row(row), file.norm.data(), dims.inner_size, dims.rms_norm_eps, last.row(0));
        last.quantize(0, kernels);
        decoder.multiply(file.output, last.rows(1), projected, nothing);
        projected.quantize(0, kernels);
        multiply_head(i);
        tokens[i] = sampler.pick({logits.row(i), dims.codebook_size}, options, tokens.first(i));
        file.embed(static_cast<std::size_t>(tokens[i]), previous);
        return tokens[i];
    }

    void multiply_head(std::size_t i) {
        const auto product = kernels.products[static_cast<std::size_t>(file.head.format)];
        const std::size_t tile_bytes = file.head.tile_bytes();
        const std::size_t grain = std::max<std::size_t>(1, 65536 / tile_bytes);
        pool.run(file.head.num_tiles(), grain, [&](std::size_t tile, std::size_t) {
            product(file.head.data + tile * tile_bytes, file.head.padded_cols(), projected.rows(1),
                    logits.row(i) + tile * kernels::tile_rows, logits.stride());
        });
    }

    // The rest of the newest position's group; its first sub-vector is in row `row` of the transformer's output.
    void finish(std::size_t position, std::size_t row, Sampler& sampler, const SamplingOptions& options,
                std::span<std::int64_t> tokens) {
        pick(row, 0, sampler, options, tokens);
        for (std::size_t i = 1; i < dims.group_size; ++i) {
            advance(position * dims.group_size + i, 1);
            pick(0, i, sampler, options, tokens);
        }
    }

    void truncate(std::size_t position) {
        if (position < last_tokens.size()) last_tokens.resize(position);
        decoder.truncate(position * dims.group_size);
        condition_on_newest();
    }

    void condition_on_newest() { file.embed(last_tokens.empty() ? dims.bos_id : last_tokens.back(), previous); }

    template <class Call>
    void all_or_nothing(Call call) {
        const std::size_t before = last_tokens.size();
        try {
            call();
        } catch (...) {
            truncate(before);
            throw;
        }
    }

    SpeechHeadFile file;
    SpeechHeadDims dims;
    const kernels::Kernels& kernels;
    std::size_t max_positions;
    ThreadPool pool;
    Decoder decoder;
    Activations u;                         // [positions per block, H]
    Activations sub_vectors;               // [positions per block, group_size * H]
    Activations z;                         // [positions per block * group_size, H]
    Activations last;                      // [1, inner_size] normed
    Activations projected;                 // [1, H]
    Activations logits;                    // [group_size, K]
    std::vector<float> previous;           // [H] embedding of the newest token
    std::vector<std::size_t> last_tokens;  // per backbone position, what conditions the next group
};

SpeechHeadLoop::SpeechHeadLoop(const std::filesystem::path& path, const SpeechHeadOptions& options)
    : state_(std::make_unique<State>(path, options)) {}
SpeechHeadLoop::~SpeechHeadLoop() = default;
SpeechHeadLoop::SpeechHeadLoop(SpeechHeadLoop&&) noexcept = default;
SpeechHeadLoop& SpeechHeadLoop::operator=(SpeechHeadLoop&&) noexcept = default;

const SpeechHeadDims& SpeechHeadLoop::dims() const {
    return state_->dims;
}

WeightFormat SpeechHeadLoop::format() const {
    return state_->file.format();
}

std::string_view SpeechHeadLoop::isa() const {
    return state_->kernels.name;
}

std::size_t SpeechHeadLoop::num_positions() const {
    return state_->last_tokens.size();
}

std::size_t SpeechHeadLoop::max_positions() const {
    return state_->max_positions;
}

std::size_t SpeechHeadLoop::cache_bytes_per_position() const {
    return state_->decoder.cache_bytes_per_position() * state_->dims.group_size;
}

std::span<const float> SpeechHeadLoop::logits(std::size_t i) const {
    if (i >= state_->dims.group_size)
        throw std::out_of_range("sub-step " + std::to_string(i) + " is outside the group");
    return {state_->logits.row(i), state_->dims.codebook_size};
}

void SpeechHeadLoop::truncate(std::size_t position) {
    state_->truncate(position);
}

std::uint64_t SpeechHeadLoop::read_weights() {
    return read_all(state_->file.bytes(), state_->pool, state_->kernels);
}

std::int32_t int8_multiply_adds(std::size_t num_rounds) {
    return kernels::choose().multiply_adds(num_rounds);
}

void SpeechHeadLoop::prefill(std::span<const float> u, Sampler& sampler, const SamplingOptions& options,
                             std::span<std::int64_t> tokens) {
    State& s = *state_;
    const std::size_t num_positions = s.check(u, tokens.size()), block = positions_per_block(s.dims);
    s.all_or_nothing([&] {
        for (std::size_t first = 0; first < num_positions; first += block) {
            const std::size_t count = std::min(block, num_positions - first);
            s.upsample(u.data() + first * s.dims.hidden_size, count);
            const bool is_last = first + count == num_positions;
            const std::size_t num_rows = count * s.dims.group_size - (is_last ? s.dims.group_size - 1 : 0);
            s.advance(0, num_rows);
            if (is_last) s.finish(count - 1, num_rows - 1, sampler, options, tokens);
        }
        const std::size_t kept = s.last_tokens.empty() ? s.dims.bos_id : s.last_tokens.back();
        s.last_tokens.insert(s.last_tokens.end(), num_positions - 1, kept);
        s.last_tokens.push_back(static_cast<std::size_t>(tokens.back()));
    });
}

void SpeechHeadLoop::extend(std::span<const float> u) {
    State& s = *state_;
    const std::size_t num_positions = s.check(u, s.dims.group_size), block = positions_per_block(s.dims);
    for (std::size_t first = 0; first < num_positions; first += block) {
        const std::size_t count = std::min(block, num_positions - first);
        s.upsample(u.data() + first * s.dims.hidden_size, count);
        s.advance(0, count * s.dims.group_size);
    }
    const std::size_t kept = s.last_tokens.empty() ? s.dims.bos_id : s.last_tokens.back();
    s.last_tokens.insert(s.last_tokens.end(), num_positions, kept);
}

void SpeechHeadLoop::group(std::span<const float> u, Sampler& sampler, const SamplingOptions& options,
                           std::span<std::int64_t> tokens) {
    State& s = *state_;
    if (s.check(u, tokens.size()) != 1) {
        throw std::invalid_argument("u has " + std::to_string(u.size()) + " values, must have one row of " +
                                    std::to_string(s.dims.hidden_size));
    }
    s.all_or_nothing([&] {
        s.upsample(u.data(), 1);
        s.advance(0, 1);
        s.finish(0, 0, sampler, options, tokens);
        s.last_tokens.push_back(static_cast<std::size_t>(tokens.back()));
    });
}

}  // namespace facrt
