#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "facrt/packed_matrix.hpp"

namespace facrt {

// The sizes of a transformer decoder (Qwen3, dense).
struct DecoderDims {
    std::uint32_t hidden_size = 0;
    std::uint32_t intermediate_size = 0;  // of its SwiGLU
    std::uint32_t num_layers = 0;
    std::uint32_t num_heads = 0;
    std::uint32_t num_kv_heads = 0;
    std::uint32_t head_dim = 0;  // even
    std::uint32_t has_attention_bias = 0;
    float rms_norm_eps = 0.0f;
    double rope_theta = 0.0;
};

struct DecoderLayer {
    std::span<const float> attention_norm;  // [hidden_size]
    PackedMatrix qkv;                       // [(num_heads + 2 num_kv_heads) head_dim, hidden_size]
    std::span<const float> qkv_bias;        // empty without has_attention_bias
    std::span<const float> q_norm;          // [head_dim]
    std::span<const float> k_norm;          // [head_dim]
    PackedMatrix out;                       // [hidden_size, num_heads head_dim]
    std::span<const float> out_bias;        // empty without has_attention_bias
    std::span<const float> mlp_norm;        // [hidden_size]
    PackedMatrix gate;                      // [intermediate_size, hidden_size]
    PackedMatrix up;                        // [intermediate_size, hidden_size]
    PackedMatrix down;                      // [hidden_size, intermediate_size]
};

// Where a decoder's weights lie in a mapped file.
struct DecoderWeights {
    DecoderDims dims;
    WeightFormat format = WeightFormat::fp32;
    std::vector<DecoderLayer> layers;
};

}  // namespace facrt
