#include "facrt/speech_head_file.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "facrt/dtype.hpp"

namespace facrt {
namespace {

static_assert(std::endian::native == std::endian::little, "the file is read in place");

constexpr std::array<char, 8> magic{'F', 'A', 'C', 'R', 'T', 'S', 'H', '\0'};
constexpr std::uint32_t version = 1;
constexpr std::size_t tile_rows = 16;
constexpr std::size_t alignment = 64;
constexpr std::uint32_t largest_dim = 1u << 20;  // keeps every product of three dims and an item size within 64 bits
constexpr std::uint32_t most_layers = 1u << 12;

constexpr std::size_t round_up(std::size_t value, std::size_t step) {
    return (value + step - 1) / step * step;
}

std::size_t col_padding(WeightFormat format) {
    return format == WeightFormat::int4_128 ? 256 : format == WeightFormat::int4_32 ? 64 : 32;
}

// Takes the tensors of the file one after the other and refuses what does not fit.
class Cursor {
  public:
    Cursor(std::span<const std::byte> bytes, std::string name) : bytes_(bytes), name_(std::move(name)) {}

    [[noreturn]] void refuse(const std::string& fault) const {
        throw std::runtime_error(name_ + " is no usable speech head file (" + fault + "); export the bundle again");
    }

    template <class Value>
    Value read() {
        if (bytes_.size() - position_ < sizeof(Value)) refuse("it ends within the header");
        Value value;
        std::memcpy(&value, bytes_.data() + position_, sizeof value);
        position_ += sizeof value;
        return value;
    }

    void read_table(std::uint64_t num_tensors) {
        if (num_tensors > (bytes_.size() - position_) / 16) refuse("its tensor table is cut off");
        end_ = position_ + static_cast<std::size_t>(num_tensors) * 16;
        remaining_ = num_tensors;
    }

    const std::byte* tensor(const std::string& what, std::size_t wanted_bytes) {
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

    PackedMatrix matrix(const std::string& what, WeightFormat format, std::size_t rows, std::size_t cols) {
        PackedMatrix result{format, rows, cols, nullptr};
        result.data = tensor(what, result.size_bytes());
        return result;
    }

    std::span<const float> vector(const std::string& what, std::size_t size) {
        return {reinterpret_cast<const float*>(tensor(what, size * sizeof(float))), size};
    }

    void finish() const {
        if (remaining_ != 0) refuse("its tensor table has " + std::to_string(remaining_) + " entries too many");
    }

  private:
    std::span<const std::byte> bytes_;
    std::string name_;
    std::size_t position_ = 0;
    std::uint64_t end_ = 0;  // of the newest tensor
    std::uint64_t remaining_ = 0;
};

SpeechHeadDims read_dims(Cursor& cursor) {
    SpeechHeadDims dims;
    const std::array<std::pair<const char*, std::uint32_t*>, 11> fields{{
        {"hidden_size", &dims.hidden_size},
        {"inner_size", &dims.inner_size},
        {"intermediate_size", &dims.intermediate_size},
        {"num_layers", &dims.num_layers},
        {"num_heads", &dims.num_heads},
        {"num_kv_heads", &dims.num_kv_heads},
        {"head_dim", &dims.head_dim},
        {"group_size", &dims.group_size},
        {"codebook_size", &dims.codebook_size},
        {"bos_id", &dims.bos_id},
        {"has_attention_bias", &dims.has_attention_bias},
    }};
    for (const auto& [name, field] : fields) {
        *field = cursor.read<std::uint32_t>();
        const bool may_be_zero = field == &dims.bos_id || field == &dims.has_attention_bias;
        if (*field > largest_dim || (*field == 0 && !may_be_zero)) {
            cursor.refuse(std::string(name) + " is " + std::to_string(*field));
        }
    }
    dims.rms_norm_eps = cursor.read<float>();
    dims.rope_theta = cursor.read<double>();
    if (!(dims.rms_norm_eps >= 0.0f && dims.rms_norm_eps < 1.0f)) cursor.refuse("rms_norm_eps is out of range");
    if (!(dims.rope_theta > 0.0 && std::isfinite(dims.rope_theta))) cursor.refuse("rope_theta is out of range");
    if (dims.num_layers > most_layers) cursor.refuse("num_layers is " + std::to_string(dims.num_layers));
    if (dims.num_heads % dims.num_kv_heads != 0) cursor.refuse("num_heads is no multiple of num_kv_heads");
    if (dims.head_dim % 2 != 0) cursor.refuse("head_dim is odd");
    if (dims.bos_id >= dims.codebook_size) cursor.refuse("bos_id is outside the codebook");
    if (dims.has_attention_bias > 1) cursor.refuse("has_attention_bias is neither 0 nor 1");
    return dims;
}

SpeechHeadLayer read_layer(Cursor& cursor, const SpeechHeadDims& d, WeightFormat format, std::size_t index) {
    const std::string where = "layer " + std::to_string(index) + " ";
    const std::size_t heads = std::size_t{d.num_heads} * d.head_dim;
    const std::size_t qkv = heads + 2 * std::size_t{d.num_kv_heads} * d.head_dim;
    SpeechHeadLayer layer;
    layer.attention_norm = cursor.vector(where + "attention_norm", d.inner_size);
    layer.qkv = cursor.matrix(where + "qkv", format, qkv, d.inner_size);
    if (d.has_attention_bias) layer.qkv_bias = cursor.vector(where + "qkv_bias", qkv);
    layer.q_norm = cursor.vector(where + "q_norm", d.head_dim);
    layer.k_norm = cursor.vector(where + "k_norm", d.head_dim);
    layer.out = cursor.matrix(where + "out", format, d.inner_size, heads);
    if (d.has_attention_bias) layer.out_bias = cursor.vector(where + "out_bias", d.inner_size);
    layer.mlp_norm = cursor.vector(where + "mlp_norm", d.inner_size);
    layer.gate = cursor.matrix(where + "gate", format, d.intermediate_size, d.inner_size);
    layer.up = cursor.matrix(where + "up", format, d.intermediate_size, d.inner_size);
    layer.down = cursor.matrix(where + "down", format, d.inner_size, d.intermediate_size);
    return layer;
}

}  // namespace

std::string_view name_of(WeightFormat format) {
    constexpr std::array<std::string_view, 6> names{"fp32", "fp16", "bf16", "int8", "int4_32", "int4_128"};
    return names[static_cast<std::size_t>(format)];
}

std::size_t PackedMatrix::num_tiles() const {
    return round_up(rows, tile_rows) / tile_rows;
}

std::size_t PackedMatrix::padded_cols() const {
    return round_up(cols, col_padding(format));
}

std::size_t PackedMatrix::tile_bytes() const {
    const std::size_t items = padded_cols() * tile_rows;
    switch (format) {
        case WeightFormat::fp32:
            return items * 4;
        case WeightFormat::fp16:
        case WeightFormat::bf16:
            return items * 2;
        case WeightFormat::int8:
            return tile_rows * sizeof(float) + items;
        case WeightFormat::int4_32:
        case WeightFormat::int4_128:
            break;
    }
    return padded_cols() / col_padding(format) * alignment + items / 2;
}

SpeechHeadFile::SpeechHeadFile(const std::filesystem::path& path) : file_(path) {
    Cursor cursor(file_.bytes(), path.string());
    if (cursor.read<std::array<char, 8>>() != magic) cursor.refuse("it does not begin with FACRTSH");
    if (const auto found = cursor.read<std::uint32_t>(); found != version) {
        cursor.refuse("version " + std::to_string(found) + ", version 1 is read");
    }
    const auto format = cursor.read<std::uint32_t>();
    if (format > static_cast<std::uint32_t>(WeightFormat::int4_128)) {
        cursor.refuse("weight format " + std::to_string(format));
    }
    format_ = static_cast<WeightFormat>(format);
    dims_ = read_dims(cursor);
    if (const auto size = cursor.read<std::uint64_t>(); size != file_.bytes().size()) {
        cursor.refuse(std::to_string(file_.bytes().size()) + " bytes long, the header says " + std::to_string(size));
    }
    cursor.read_table(cursor.read<std::uint64_t>());

    const SpeechHeadDims& d = dims_;
    const std::size_t h = d.hidden_size;
    upsample = cursor.matrix("upsample", format_, d.group_size * h, h);
    upsample_bias = cursor.vector("upsample_bias", d.group_size * h);
    input = cursor.matrix("input", format_, d.inner_size, h);
    for (std::size_t i = 0; i < d.num_layers; ++i) layers.push_back(read_layer(cursor, d, format_, i));
    norm = cursor.vector("norm", d.inner_size);
    output = cursor.matrix("output", format_, h, d.inner_size);
    head = cursor.matrix("head", format_, d.codebook_size, h);
    const std::size_t item_bytes = format_ == WeightFormat::fp32 ? sizeof(float) : sizeof(std::uint16_t);
    embedding_ = cursor.tensor("embedding", d.codebook_size * h * item_bytes);
    cursor.finish();
}

void SpeechHeadFile::embed(std::size_t id, std::span<float> out) const {
    if (id >= dims_.codebook_size) throw std::out_of_range("id " + std::to_string(id) + " is outside the codebook");
    const std::size_t first = id * out.size();
    if (format_ == WeightFormat::fp32) {
        std::memcpy(out.data(), embedding_ + first * sizeof(float), out.size_bytes());
        return;
    }
    const auto* row = reinterpret_cast<const std::uint16_t*>(embedding_) + first;
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = bfloat16_to_float(row[i]);
}

}  // namespace facrt
