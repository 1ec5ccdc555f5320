#include "facrt/speech_head_file.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>
#include <string>

#include "facrt/dtype.hpp"
#include "weight_reader.hpp"

namespace facrt {
namespace {

constexpr std::array<char, 8> magic{'F', 'A', 'C', 'R', 'T', 'S', 'H', '\0'};
constexpr std::uint32_t version = 2;

SpeechHeadDims read_dims(WeightReader& reader) {
    SpeechHeadDims dims;
    reader.read_sizes({{"hidden_size", &dims.hidden_size},
                       {"inner_size", &dims.inner_size},
                       {"intermediate_size", &dims.intermediate_size},
                       {"num_layers", &dims.num_layers},
                       {"num_heads", &dims.num_heads},
                       {"num_kv_heads", &dims.num_kv_heads},
                       {"head_dim", &dims.head_dim},
                       {"group_size", &dims.group_size},
                       {"codebook_size", &dims.codebook_size},
                       {"bos_id", &dims.bos_id, true},
                       {"has_attention_bias", &dims.has_attention_bias, true}});
    dims.rms_norm_eps = reader.read<float>();
    dims.rope_theta = reader.read<double>();
    reader.check(dims.decoder());
    if (dims.bos_id >= dims.codebook_size) reader.refuse("bos_id is outside the codebook");
    return dims;
}

}  // namespace

SpeechHeadFile::SpeechHeadFile(const std::filesystem::path& path) : file_(path) {
    WeightReader reader(file_.bytes(), path.string(), "speech head");
    const WeightFormat format = reader.read_format(magic, version);
    dims_ = read_dims(reader);
    reader.read_table();

    const SpeechHeadDims& d = dims_;
    const std::size_t h = d.hidden_size;
    upsample = reader.matrix("upsample", format, d.group_size * h, h);
    upsample_bias = reader.vector("upsample_bias", d.group_size * h);
    input = reader.matrix("input", format, d.inner_size, h);
    decoder = reader.decoder(d.decoder(), format);
    norm = reader.vector("norm", d.inner_size);
    output = reader.matrix("output", format, h, d.inner_size);
    head = reader.matrix("head", format, d.codebook_size, h);
    const std::size_t item_bytes = format == WeightFormat::fp32 ? sizeof(float) : sizeof(std::uint16_t);
    embedding_ = reader.tensor("embedding", d.codebook_size * h * item_bytes);
    reader.finish();
}

void SpeechHeadFile::embed(std::size_t id, std::span<float> out) const {
    if (id >= dims_.codebook_size) throw std::out_of_range("id " + std::to_string(id) + " is outside the codebook");
    const std::size_t first = id * out.size();
    if (format() == WeightFormat::fp32) {
        std::memcpy(out.data(), embedding_ + first * sizeof(float), out.size_bytes());
        return;
    }
    const auto* row = reinterpret_cast<const std::uint16_t*>(embedding_) + first;
    const auto to_float = format() == WeightFormat::fp16 ? float16_to_float : bfloat16_to_float;
    std::transform(row, row + out.size(), out.begin(), to_float);
}

}  // namespace facrt
