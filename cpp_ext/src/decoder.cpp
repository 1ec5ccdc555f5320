#include "decoder.hpp"

#include <cmath>
#include <cstring>

namespace facrt {
namespace {

constexpr std::size_t query_rows_per_turn = 16;

bool is_integer(WeightFormat format) {
    return format >= WeightFormat::int8;
}

}  // namespace

Decoder::Decoder(const DecoderWeights& weights, const kernels::Kernels& kernels, ThreadPool& pool, std::size_t max_rows,
                 std::size_t capacity, CacheFormat cache)
    : x(max_rows, weights.dims.hidden_size, false),
      weights_(weights),
      dims_(weights.dims),
      kernels_(kernels),
      pool_(pool),
      cache_(dims_, capacity, cache),
      heads_per_kv_(dims_.num_heads / dims_.num_kv_heads),
      rows_per_turn_(std::max<std::size_t>(1, query_rows_per_turn / heads_per_kv_)),
      normed_(max_rows, dims_.hidden_size, is_integer(weights.format)),
      qkv_(max_rows, (dims_.num_heads + 2 * std::size_t{dims_.num_kv_heads}) * dims_.head_dim, false),
      attended_(max_rows, std::size_t{dims_.num_heads} * dims_.head_dim, is_integer(weights.format)),
      gated_(max_rows, dims_.intermediate_size, is_integer(weights.format)),
      product_(max_rows, std::max(dims_.hidden_size, dims_.intermediate_size), false),
      queries_(max_rows * dims_.num_heads, dims_.head_dim, cache == CacheFormat::int8, kernels::group_cols),
      rotation_(max_rows * dims_.head_dim),
      inverse_frequencies_(dims_.head_dim / 2),
      scores_(pool.num_threads() * rows_per_turn_ * heads_per_kv_, cache_.capacity() + kernels::group_cols,
              cache == CacheFormat::int8, kernels::group_cols),
      mixed_(pool.num_threads() * rows_per_turn_ * heads_per_kv_ * kernels::tile_rows),
      max_rows_(max_rows) {
    const float theta = static_cast<float>(dims_.rope_theta);
    for (std::size_t i = 0; i < dims_.head_dim / 2; ++i) {
        const float exponent = static_cast<float>(2 * i) / static_cast<float>(dims_.head_dim);
        inverse_frequencies_.data()[i] = 1.0f / std::pow(theta, exponent);
    }
}

void Decoder::forward(std::size_t num_rows) {
    rotary_angles(num_rows);
    for (std::size_t i = 0; i < dims_.num_layers; ++i) {
        const DecoderLayer& layer = weights_.layers[i];
        norm(layer.attention_norm.data(), num_rows);
        const auto add_bias = [&](std::size_t tile, float* y, std::size_t y_stride) {
            const std::size_t first = tile * kernels::tile_rows;
            if (layer.qkv_bias.empty()) return;
            for (std::size_t row = 0; row < num_rows; ++row) {
                for (std::size_t c = 0; c < std::min(kernels::tile_rows, layer.qkv.rows - first); ++c) {
                    y[row * y_stride + c] += layer.qkv_bias[first + c];
                }
            }
        };
        multiply(layer.qkv, normed_.rows(num_rows), qkv_, add_bias);
        attention(i, num_rows);
        add_product(layer.out, layer.out_bias, attended_, num_rows);
        norm(layer.mlp_norm.data(), num_rows);
        swiglu(layer, num_rows);
        add_product(layer.down, {}, gated_, num_rows);
    }
    length_ += num_rows;
}

void Decoder::quantize(Activations& rows, std::size_t num_rows) {
    pool_.run(num_rows, 1, [&](std::size_t i, std::size_t) { rows.quantize(i, kernels_); });
}

void Decoder::norm(const float* weight, std::size_t num_rows) {
    pool_.run(num_rows, 1, [&](std::size_t i, std::size_t) {
        kernels_.rms_norm(x.row(i), weight, dims_.hidden_size, dims_.rms_norm_eps, normed_.row(i));
        normed_.quantize(i, kernels_);
    });
}

// x += matrix times rows + bias
void Decoder::add_product(const PackedMatrix& matrix, std::span<const float> bias, const Activations& rows,
                          std::size_t num_rows) {
    multiply(matrix, rows.rows(num_rows), product_, [&](std::size_t tile, const float* y, std::size_t y_stride) {
        const std::size_t first = tile * kernels::tile_rows;
        const std::size_t count = std::min(kernels::tile_rows, matrix.rows - first);
        for (std::size_t i = 0; i < num_rows; ++i) {
            float* out = x.row(i) + first;
            for (std::size_t c = 0; c < count; ++c) {
                out[c] += y[i * y_stride + c] + (bias.empty() ? 0.0f : bias[first + c]);
            }
        }
    });
}

void Decoder::swiglu(const DecoderLayer& layer, std::size_t num_rows) {
    const auto product = kernels_.products[static_cast<std::size_t>(layer.up.format)];
    const kernels::Rows in = normed_.rows(num_rows);
    const std::size_t up_bytes = layer.up.tile_bytes(), up_cols = layer.up.padded_cols();
    multiply(layer.gate, in, gated_, [&](std::size_t tile, float* gate, std::size_t stride) {
        float* up = product_.row(0) + tile * kernels::tile_rows;
        product(layer.up.data + tile * up_bytes, up_cols, in, up, product_.stride());
        for (std::size_t i = 0; i < num_rows; ++i)
            kernels_.silu_multiply(gate + i * stride, up + i * product_.stride());
    });
    quantize(gated_, num_rows);
}

void Decoder::rotary_angles(std::size_t num_rows) {
    const std::size_t half = dims_.head_dim / 2;
    float* cosines = rotation_.data();
    float* sines = cosines + max_rows_ * half;
    for (std::size_t row = 0; row < num_rows; ++row) {
        for (std::size_t i = 0; i < half; ++i) {
            const float angle = static_cast<float>(length_ + row) * inverse_frequencies_.data()[i];
            cosines[row * half + i] = std::cos(angle);
            sines[row * half + i] = std::sin(angle);
        }
    }
}

void Decoder::norm_and_rotate(const float* in, const float* weight, std::size_t row, float* out) const {
    const std::size_t half = dims_.head_dim / 2;
    const float* cosines = rotation_.data() + row * half;
    const float* sines = cosines + max_rows_ * half;
    kernels_.rms_norm(in, weight, dims_.head_dim, dims_.rms_norm_eps, out);
    for (std::size_t i = 0; i < half; ++i) {
        const float first = out[i], second = out[half + i];
        out[i] = first * cosines[i] - second * sines[i];
        out[half + i] = second * cosines[i] + first * sines[i];
    }
}

void Decoder::attention(std::size_t layer, std::size_t num_rows) {
    const std::size_t num_heads = dims_.num_kv_heads;
    if (num_rows == 1) {
        pool_.run(num_heads, 1, [&](std::size_t head, std::size_t thread) {
            enter_cache(layer, head, 0, 1);
            attend(layer, head, 0, 1, 1, thread);
        });
        attended_.quantize(0, kernels_);
        return;
    }
    pool_.run(num_rows, 1, [&](std::size_t row, std::size_t) {
        for (std::size_t head = 0; head < num_heads; ++head) enter_cache(layer, head, row, num_rows);
    });
    const std::size_t num_turns = (num_rows + rows_per_turn_ - 1) / rows_per_turn_;
    pool_.run(num_heads * num_turns, 1, [&](std::size_t i, std::size_t thread) {
        const std::size_t first = i % num_turns * rows_per_turn_;
        attend(layer, i / num_turns, first, std::min(first + rows_per_turn_, num_rows), num_rows, thread);
    });
    quantize(attended_, num_rows);
}

void Decoder::enter_cache(std::size_t layer, std::size_t head, std::size_t row, std::size_t num_rows) {
    const DecoderLayer& weights = weights_.layers[layer];
    const std::size_t dim = dims_.head_dim, position = length_ + row;
    const float* in = qkv_.row(row);
    const std::size_t query = (head * num_rows + row) * heads_per_kv_;
    for (std::size_t r = 0; r < heads_per_kv_; ++r) {
        norm_and_rotate(in + (head * heads_per_kv_ + r) * dim, weights.q_norm.data(), row, queries_.row(query + r));
        queries_.quantize(query + r, kernels_);
    }
    float* key = qkv_.row(row) + (dims_.num_heads + head) * dim;
    norm_and_rotate(key, weights.k_norm.data(), row, key);
    cache_.write(layer, head, position, key, key + dims_.num_kv_heads * dim);
    if (row + 1 == num_rows) cache_.clear_value(layer, head, position + 1);
}

// Rows first .. last-1 of one KV head's queries over everything they may see.
void Decoder::attend(std::size_t layer, std::size_t head, std::size_t first, std::size_t last, std::size_t num_rows,
                     std::size_t thread) {
    const std::size_t dim = dims_.head_dim, num_queries = (last - first) * heads_per_kv_;
    const std::size_t num_seen = length_ + last, num_scores = round_up(num_seen, kernels::group_cols);
    const auto product = kernels_.products[static_cast<std::size_t>(cache_.format)];
    const bool is_int8 = cache_.format == WeightFormat::int8;
    const std::size_t first_score = thread * rows_per_turn_ * heads_per_kv_;

    const kernels::Rows queries = queries_.rows((head * num_rows + first) * heads_per_kv_, num_queries);
    const std::size_t key_cols = is_int8 ? queries_.stride() : dim;
    for (std::size_t tile = 0; tile < num_scores / kernels::tile_rows; ++tile) {
        float* scores = scores_.row(first_score) + tile * kernels::tile_rows;
        product(cache_.key_tile(layer, head, tile), key_cols, queries, scores, scores_.stride());
    }
    const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
    for (std::size_t i = 0; i < num_queries; ++i) {
        float* row = scores_.row(first_score + i);
        const float sum = kernels_.softmax(row, length_ + first + i / heads_per_kv_ + 1, num_scores, scale);
        const float factor = 1.0f / sum;
        for (std::size_t p = 0; p < num_scores; ++p) row[p] *= factor;
        if (!is_int8) continue;
        const float* value_scales = cache_.value_scales(layer, head);
        for (std::size_t p = 0; p < num_scores; ++p) row[p] *= value_scales[p];
        scores_.quantize(first_score + i, kernels_, num_scores);
    }
    const kernels::Rows weights = scores_.rows(first_score, num_queries);
    const std::size_t value_cols = is_int8 ? num_scores : round_up(num_seen, 2);
    float* mixed = mixed_.data() + thread * rows_per_turn_ * heads_per_kv_ * kernels::tile_rows;
    for (std::size_t tile = 0; tile < cache_.num_value_tiles(); ++tile) {
        product(cache_.value_tile(layer, head, tile), value_cols, weights, mixed, kernels::tile_rows);
        const std::size_t start = tile * kernels::tile_rows, count = std::min(kernels::tile_rows, dim - start);
        for (std::size_t i = 0; i < num_queries; ++i) {
            const std::size_t query_head = head * heads_per_kv_ + i % heads_per_kv_;
            float* out = attended_.row(first + i / heads_per_kv_) + query_head * dim + start;
            std::memcpy(out, mixed + i * kernels::tile_rows, count * sizeof(float));
        }
    }
}

}  // namespace facrt
