#include "facrt/backbone_file.hpp"

#include <array>

#include "weight_reader.hpp"

namespace facrt {
namespace {

constexpr std::array<char, 8> magic{'F', 'A', 'C', 'R', 'T', 'B', 'B', '\0'};
constexpr std::uint32_t version = 1;

}  // namespace

BackboneFile::BackboneFile(const std::filesystem::path& path) : file_(path) {
    WeightReader reader(file_.bytes(), path.string(), "backbone");
    const WeightFormat format = reader.read_format(magic, version);
    DecoderDims dims;
    reader.read_sizes({{"hidden_size", &dims.hidden_size},
                       {"intermediate_size", &dims.intermediate_size},
                       {"num_layers", &dims.num_layers},
                       {"num_heads", &dims.num_heads},
                       {"num_kv_heads", &dims.num_kv_heads},
                       {"head_dim", &dims.head_dim},
                       {"has_attention_bias", &dims.has_attention_bias, true}});
    dims.rms_norm_eps = reader.read<float>();
    dims.rope_theta = reader.read<double>();
    reader.check(dims);
    std::uint32_t vocab_size = 0;
    reader.read_sizes({{"vocab_size", &vocab_size}});
    reader.read_table();

    decoder = reader.decoder(dims, format);
    norm = reader.vector("norm", dims.hidden_size);
    head = reader.matrix("head", format, vocab_size, dims.hidden_size);
    reader.finish();
}

}  // namespace facrt
