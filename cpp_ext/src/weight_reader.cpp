#include "weight_reader.hpp"

#include <bit>
#include <cmath>
#include <stdexcept>

namespace facrt {
namespace {

static_assert(std::endian::native == std::endian::little, "the file is read in place");

constexpr std::size_t alignment = 64;
constexpr std::uint32_t largest_dim = 1u << 20;  // keeps every product of three dims and an item size within 64 bits
constexpr std::uint32_t most_layers = 1u << 12;

}  // namespace

void WeightReader::refuse(const std::string& fault) const {
    throw std::runtime_error(name_ + " is no usable " + kind_ + " file (" + fault + "); export the bundle again");
}

WeightFormat WeightReader::read_format(const std::array<char, 8>& magic, std::uint32_t version) {
    if (read<std::array<char, 8>>() != magic) refuse(std::string("it does not begin with ") + magic.data());
    if (const auto found = read<std::uint32_t>(); found != version) {
        refuse("version " + std::to_string(found) + ", version " + std::to_string(version) + " is read");
    }
    const auto format = read<std::uint32_t>();
    if (format > static_cast<std::uint32_t>(WeightFormat::int4_128)) refuse("weight format " + std::to_string(format));
    return static_cast<WeightFormat>(format);
}

void WeightReader::read_sizes(std::initializer_list<Size> sizes) {
    for (const Size& size : sizes) {
        *size.value = read<std::uint32_t>();
        if (*size.value > largest_dim || (*size.value == 0 && !size.may_be_zero)) {
            refuse(std::string(size.name) + " is " + std::to_string(*size.value));
        }
    }
}

void WeightReader::read_table() {
    if (const auto size = read<std::uint64_t>(); size != bytes_.size()) {
        refuse(std::to_string(bytes_.size()) + " bytes long, the header says " + std::to_string(size));
    }
    remaining_ = read<std::uint64_t>();
    if (remaining_ > (bytes_.size() - position_) / 16) refuse("its tensor table is cut off");
    end_ = position_ + static_cast<std::size_t>(remaining_) * 16;
}

void WeightReader::check(const DecoderDims& dims) const {
    if (!(dims.rms_norm_eps >= 0.0f && dims.rms_norm_eps < 1.0f)) refuse("rms_norm_eps is out of range");
    if (!(dims.rope_theta > 0.0 && std::isfinite(dims.rope_theta))) refuse("rope_theta is out of range");
    if (dims.num_layers > most_layers) refuse("num_layers is " + std::to_string(dims.num_layers));
    if (dims.num_heads % dims.num_kv_heads != 0) refuse("num_heads is no multiple of num_kv_heads");
    if (dims.head_dim % 2 != 0) refuse("head_dim is odd");
    if (dims.has_attention_bias > 1) refuse("has_attention_bias is neither 0 nor 1");
}

const std::byte* WeightReader::tensor(const std::string& what, std::size_t wanted_bytes) {
    if (remaining_ == 0) refuse(what + " is missing from the tensor table");
    --remaining_;
    const auto offset = read<std::uint64_t>();
    const auto size = read<std::uint64_t>();
    if (size != wanted_bytes) {
        refuse(what + " has " + std::to_string(size) + " bytes, must have " + std::to_string(wanted_bytes));
    }
    if (offset % alignment != 0) refuse(what + " begins at " + std::to_string(offset) + ", no multiple of 64");
    if (offset < end_) refuse(what + " overlaps what lies before it");
    if (offset > bytes_.size() || bytes_.size() - offset < size) refuse(what + " ends beyond the file");
    end_ = offset + size;
    return bytes_.data() + offset;
}

PackedMatrix WeightReader::matrix(const std::string& what, WeightFormat format, std::size_t rows, std::size_t cols) {
    PackedMatrix result{format, rows, cols, nullptr};
    result.data = tensor(what, result.size_bytes());
    return result;
}

std::span<const float> WeightReader::vector(const std::string& what, std::size_t size) {
    return {reinterpret_cast<const float*>(tensor(what, size * sizeof(float))), size};
}

DecoderWeights WeightReader::decoder(const DecoderDims& dims, WeightFormat format) {
    DecoderWeights weights{dims, format, {}};
    for (std::size_t i = 0; i < dims.num_layers; ++i) weights.layers.push_back(layer(dims, format, i));
    return weights;
}

DecoderLayer WeightReader::layer(const DecoderDims& d, WeightFormat format, std::size_t index) {
    const std::string where = "layer " + std::to_string(index) + " ";
    const std::size_t heads = std::size_t{d.num_heads} * d.head_dim;
    const std::size_t qkv = heads + 2 * std::size_t{d.num_kv_heads} * d.head_dim;
    DecoderLayer layer;
    layer.attention_norm = vector(where + "attention_norm", d.hidden_size);
    layer.qkv = matrix(where + "qkv", format, qkv, d.hidden_size);
    if (d.has_attention_bias) layer.qkv_bias = vector(where + "qkv_bias", qkv);
    layer.q_norm = vector(where + "q_norm", d.head_dim);
    layer.k_norm = vector(where + "k_norm", d.head_dim);
    layer.out = matrix(where + "out", format, d.hidden_size, heads);
    if (d.has_attention_bias) layer.out_bias = vector(where + "out_bias", d.hidden_size);
    layer.mlp_norm = vector(where + "mlp_norm", d.hidden_size);
    layer.gate = matrix(where + "gate", format, d.intermediate_size, d.hidden_size);
    layer.up = matrix(where + "up", format, d.intermediate_size, d.hidden_size);
    layer.down = matrix(where + "down", format, d.hidden_size, d.intermediate_size);
    return layer;
}

void WeightReader::finish() const {
    if (remaining_ != 0) refuse("its tensor table has " + std::to_string(remaining_) + " entries too many");
}

}  // namespace facrt
