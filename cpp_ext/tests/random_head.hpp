#pragma once

#include <unistd.h>

#include <array>
#include <bit>
#include <cmath>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "facrt/dtype.hpp"
#include "facrt/speech_head_file.hpp"

// A speech head file of random weights, byte by byte as speech_head_file.hpp describes it.
class RandomHead {
  public:
    RandomHead(const facrt::SpeechHeadDims& dims, facrt::WeightFormat format) : dims_(dims), format_(format) {
        const std::size_t h = dims.hidden_size, inner = dims.inner_size, heads = dims.num_heads * dims.head_dim;
        const std::size_t qkv = heads + 2 * dims.num_kv_heads * dims.head_dim;
        matrix(dims.group_size * h, h);
        vector(dims.group_size * h, 0.0f);
        matrix(inner, h);
        for (std::uint32_t i = 0; i < dims.num_layers; ++i) {
            vector(inner, 1.0f);
            matrix(qkv, inner);
            if (dims.has_attention_bias) vector(qkv, 0.0f);
            vector(dims.head_dim, 1.0f);
            vector(dims.head_dim, 1.0f);
            matrix(inner, heads);
            if (dims.has_attention_bias) vector(inner, 0.0f);
            vector(inner, 1.0f);
            matrix(dims.intermediate_size, inner);
            matrix(dims.intermediate_size, inner);
            matrix(inner, dims.intermediate_size);
        }
        vector(inner, 1.0f);
        matrix(h, inner);
        matrix(dims.codebook_size, h);
        embedding();
    }

    std::vector<char> bytes() const {
        const std::size_t header = 88 + 16 * tensors_.size();
        std::vector<std::uint64_t> offsets;
        std::size_t end = header;
        for (const auto& tensor : tensors_) {
            offsets.push_back((end + 63) / 64 * 64);
            end = offsets.back() + tensor.size();
        }
        std::vector<char> out(end);
        std::size_t place = 0;
        const auto put = [&](const auto& value) {
            std::memcpy(out.data() + place, &value, sizeof value);
            place += sizeof value;
        };
        put(std::array<char, 8>{'F', 'A', 'C', 'R', 'T', 'S', 'H', '\0'});
        put(std::uint32_t{1});
        put(static_cast<std::uint32_t>(format_));
        for (const std::uint32_t field :
             {dims_.hidden_size, dims_.inner_size, dims_.intermediate_size, dims_.num_layers, dims_.num_heads,
              dims_.num_kv_heads, dims_.head_dim, dims_.group_size, dims_.codebook_size, dims_.bos_id,
              dims_.has_attention_bias}) {
            put(field);
        }
        put(dims_.rms_norm_eps);
        put(dims_.rope_theta);
        put(std::uint64_t{end});
        put(std::uint64_t{tensors_.size()});
        for (std::size_t i = 0; i < tensors_.size(); ++i) {
            put(offsets[i]);
            put(std::uint64_t{tensors_[i].size()});
            std::memcpy(out.data() + offsets[i], tensors_[i].data(), tensors_[i].size());
        }
        return out;
    }

  private:
    float normal() { return std::normal_distribution<float>()(random_); }

    template <class Item>
    static void append(std::vector<char>& tensor, const Item& item) {
        const char* bytes = reinterpret_cast<const char*>(&item);
        tensor.insert(tensor.end(), bytes, bytes + sizeof item);
    }

    void vector(std::size_t size, float centre) {
        std::vector<char> tensor;
        for (std::size_t i = 0; i < size; ++i) append(tensor, centre + 0.1f * normal());
        tensors_.push_back(std::move(tensor));
    }

    // Any bytes but 0 are valid quants; only the scales need care. Padding is random too: nothing may depend on it but
    // through activations that are zero, so columns beyond `cols` and rows beyond `rows` test just that.
    void matrix(std::size_t rows, std::size_t cols) {
        const facrt::PackedMatrix shape{format_, rows, cols, nullptr};
        std::vector<char> tensor;
        const float scale = 1.0f / std::sqrt(static_cast<float>(cols));
        const auto random_bytes = [&](std::size_t n) {
            for (std::size_t i = 0; i < n; ++i) tensor.push_back(static_cast<char>(1 + random_() % 255));
        };
        const std::size_t items = shape.padded_cols() * 16;
        for (std::size_t tile = 0; tile < shape.num_tiles(); ++tile) {
            switch (format_) {
                case facrt::WeightFormat::fp32:
                    for (std::size_t i = 0; i < items; ++i) append(tensor, scale * normal());
                    break;
                case facrt::WeightFormat::fp16:
                    for (std::size_t i = 0; i < items; ++i) append(tensor, facrt::float_to_float16(scale * normal()));
                    break;
                case facrt::WeightFormat::bf16:
                    for (std::size_t i = 0; i < items; ++i) append(tensor, bfloat16(scale * normal()));
                    break;
                case facrt::WeightFormat::int8:
                    for (int i = 0; i < 16; ++i) append(tensor, scale / 64.0f);
                    random_bytes(items);
                    break;
                default: {
                    const std::size_t pair = format_ == facrt::WeightFormat::int4_32 ? 64 : 256;
                    for (std::size_t p = 0; p < shape.padded_cols() / pair; ++p) {
                        for (int i = 0; i < 32; ++i) append(tensor, facrt::float_to_float16(scale / 4.0f));
                        random_bytes(pair * 8);
                    }
                }
            }
        }
        tensors_.push_back(std::move(tensor));
    }

    void embedding() {
        std::vector<char> tensor;
        for (std::size_t i = 0; i < std::size_t{dims_.codebook_size} * dims_.hidden_size; ++i) {
            if (format_ == facrt::WeightFormat::fp32) {
                append(tensor, normal());
            } else {
                append(tensor, bfloat16(normal()));
            }
        }
        tensors_.push_back(std::move(tensor));
    }

    static std::uint16_t bfloat16(float value) {
        return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16);
    }

    facrt::SpeechHeadDims dims_;
    facrt::WeightFormat format_;
    std::mt19937 random_{7};
    std::vector<std::vector<char>> tensors_;
};

// A file that goes away with this object.
class TemporaryHeadFile {
  public:
    explicit TemporaryHeadFile(const std::vector<char>& bytes)
        : path_(std::filesystem::temp_directory_path() /
                ("facrt_head_" + std::to_string(::getpid()) + "_" + std::to_string(count++))) {
        std::ofstream(path_, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    }
    ~TemporaryHeadFile() { std::filesystem::remove(path_); }
    const std::filesystem::path& path() const { return path_; }

  private:
    static inline int count = 0;
    std::filesystem::path path_;
};
