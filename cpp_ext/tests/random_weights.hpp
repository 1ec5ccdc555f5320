#pragma once

#include <unistd.h>

#include <bit>
#include <cmath>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "facrt/backbone_file.hpp"
#include "facrt/dtype.hpp"
#include "facrt/speech_head_file.hpp"

constexpr facrt::WeightFormat formats[] = {
    facrt::WeightFormat::fp32, facrt::WeightFormat::fp16,    facrt::WeightFormat::bf16,
    facrt::WeightFormat::int8, facrt::WeightFormat::int4_32, facrt::WeightFormat::int4_128,
};

// The same for the same size.
inline std::vector<float> normal_values(std::size_t size) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    std::vector<float> values(size);
    for (float& value : values) value = normal(random);
    return values;
}

// The bytes of a file with another value at a place.
template <class Value>
std::vector<char> with(std::vector<char> bytes, std::size_t place, Value value) {
    std::memcpy(bytes.data() + place, &value, sizeof value);
    return bytes;
}

// The tensors of a weight file, random, and the file around them.
class RandomTensors {
  public:
    explicit RandomTensors(facrt::WeightFormat format) : format_(format) {}

  protected:
    float normal() { return std::normal_distribution<float>()(random_); }

    template <class Item>
    static void append(std::vector<char>& out, const Item& item) {
        const char* bytes = reinterpret_cast<const char*>(&item);
        out.insert(out.end(), bytes, bytes + sizeof item);
    }

    void vector(std::size_t size, float centre) {
        std::vector<char> tensor;
        for (std::size_t i = 0; i < size; ++i) append(tensor, centre + 0.1f * normal());
        tensors_.push_back(std::move(tensor));
    }

    void decoder(const facrt::DecoderDims& dims) {
        const std::size_t wide = dims.hidden_size, heads = dims.num_heads * dims.head_dim;
        const std::size_t qkv = heads + 2 * dims.num_kv_heads * dims.head_dim;
        for (std::uint32_t i = 0; i < dims.num_layers; ++i) {
            vector(wide, 1.0f);
            matrix(qkv, wide);
            if (dims.has_attention_bias) vector(qkv, 0.0f);
            vector(dims.head_dim, 1.0f);
            vector(dims.head_dim, 1.0f);
            matrix(wide, heads);
            if (dims.has_attention_bias) vector(wide, 0.0f);
            vector(wide, 1.0f);
            matrix(dims.intermediate_size, wide);
            matrix(dims.intermediate_size, wide);
            matrix(wide, dims.intermediate_size);
        }
        vector(wide, 1.0f);
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

    void embedding(std::size_t rows, std::size_t cols) {
        std::vector<char> tensor;
        for (std::size_t i = 0; i < rows * cols; ++i) {
            if (format_ == facrt::WeightFormat::fp32) {
                append(tensor, normal());
            } else if (format_ == facrt::WeightFormat::fp16) {
                append(tensor, facrt::float_to_float16(normal()));
            } else {
                append(tensor, bfloat16(normal()));
            }
        }
        tensors_.push_back(std::move(tensor));
    }

    // head: magic number and sizes, up to the file's own size
    std::vector<char> file(std::vector<char> head) const {
        std::vector<std::uint64_t> offsets;
        std::size_t end = head.size() + 2 * sizeof(std::uint64_t) + 16 * tensors_.size();
        for (const auto& tensor : tensors_) {
            offsets.push_back((end + 63) / 64 * 64);
            end = offsets.back() + tensor.size();
        }
        append(head, std::uint64_t{end});
        append(head, std::uint64_t{tensors_.size()});
        for (std::size_t i = 0; i < tensors_.size(); ++i) {
            append(head, offsets[i]);
            append(head, std::uint64_t{tensors_[i].size()});
        }
        head.resize(end);
        for (std::size_t i = 0; i < tensors_.size(); ++i) {
            std::memcpy(head.data() + offsets[i], tensors_[i].data(), tensors_[i].size());
        }
        return head;
    }

    template <class... Fields>
    std::vector<char> head(const char (&magic)[8], std::uint32_t version, const Fields&... fields) const {
        std::vector<char> out(magic, magic + 7);
        out.push_back('\0');
        append(out, version);
        append(out, static_cast<std::uint32_t>(format_));
        (append(out, fields), ...);
        return out;
    }

    facrt::WeightFormat format_;

  private:
    static std::uint16_t bfloat16(float value) {
        return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16);
    }

    std::mt19937 random_{7};
    std::vector<std::vector<char>> tensors_;
};

// A speech head file of random weights, byte by byte as speech_head_file.hpp describes it.
class RandomHead : RandomTensors {
  public:
    RandomHead(const facrt::SpeechHeadDims& dims, facrt::WeightFormat format) : RandomTensors(format), dims_(dims) {
        const std::size_t h = dims.hidden_size;
        matrix(dims.group_size * h, h);
        vector(dims.group_size * h, 0.0f);
        matrix(dims.inner_size, h);
        decoder(dims.decoder());
        matrix(h, dims.inner_size);
        matrix(dims.codebook_size, h);
        embedding(dims.codebook_size, h);
    }

    std::vector<char> bytes() const {
        return file(head("FACRTSH", 2, dims_.hidden_size, dims_.inner_size, dims_.intermediate_size, dims_.num_layers,
                         dims_.num_heads, dims_.num_kv_heads, dims_.head_dim, dims_.group_size, dims_.codebook_size,
                         dims_.bos_id, dims_.has_attention_bias, dims_.rms_norm_eps, dims_.rope_theta));
    }

  private:
    facrt::SpeechHeadDims dims_;
};

// A backbone file of random weights, as backbone_file.hpp describes it.
class RandomBackbone : RandomTensors {
  public:
    RandomBackbone(const facrt::DecoderDims& dims, std::uint32_t vocab_size, facrt::WeightFormat format)
        : RandomTensors(format), dims_(dims), vocab_size_(vocab_size) {
        decoder(dims);
        matrix(vocab_size, dims.hidden_size);
    }

    std::vector<char> bytes() const {
        return file(head("FACRTBB", 1, dims_.hidden_size, dims_.intermediate_size, dims_.num_layers, dims_.num_heads,
                         dims_.num_kv_heads, dims_.head_dim, dims_.has_attention_bias, dims_.rms_norm_eps,
                         dims_.rope_theta, vocab_size_));
    }

  private:
    facrt::DecoderDims dims_;
    std::uint32_t vocab_size_;
};

// A file that goes away with this object.
class TemporaryFile {
  public:
    explicit TemporaryFile(const std::vector<char>& bytes)
        : path_(std::filesystem::temp_directory_path() /
                ("facrt_weights_" + std::to_string(::getpid()) + "_" + std::to_string(count++))) {
        std::ofstream(path_, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    }
    ~TemporaryFile() { std::filesystem::remove(path_); }
    const std::filesystem::path& path() const { return path_; }

  private:
    static inline int count = 0;
    std::filesystem::path path_;
};
