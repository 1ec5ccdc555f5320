#include <stdexcept>
#include <system_error>

#include "check.hpp"
#include "facrt/speech_head_file.hpp"
#include "random_weights.hpp"

namespace {

using facrt::WeightFormat;
using Bytes = std::vector<char>;

const facrt::SpeechHeadDims dims{40, 36, 50, 2, 3, 1, 12, 3, 104, 100, 0, 1e-6f, 1e4};
constexpr std::size_t first_tensor = 88;  // in the tensor table: uint64 offset, uint64 size

void open(const Bytes& bytes) {
    const TemporaryFile file(bytes);
    facrt::SpeechHeadFile(file.path());
}

void refused(const Bytes& bytes, const std::string& part) {
    CHECK(throws<std::runtime_error>([&] { open(bytes); }, part));
}

void a_whole_file_is_read() {
    const TemporaryFile file(RandomHead(dims, WeightFormat::int4_128).bytes());
    const facrt::SpeechHeadFile head(file.path());
    CHECK(head.format() == WeightFormat::int4_128);
    CHECK(head.dims().codebook_size == 104);
    CHECK(head.decoder.layers.size() == 2);
    CHECK(head.decoder.layers[1].gate.rows == 50);
    CHECK(head.decoder.layers[1].gate.padded_cols() == 256);
    std::vector<float> row(40);
    head.embed(103, row);
    CHECK(throws<std::out_of_range>([&] { head.embed(104, row); }, "104"));
}

void every_fault_has_its_sentence() {
    const Bytes whole = RandomHead(dims, WeightFormat::int8).bytes();
    open(whole);
    refused({}, "ends within the header");
    refused(with(whole, 0, 'X'), "FACRTSH");
    refused(with(whole, 8, 1u), "version 1");
    refused(with(whole, 12, 6u), "weight format 6");
    refused(with(whole, 12, 0u), "upsample has");
    refused(with(whole, 16, 0u), "hidden_size is 0");
    refused(with(whole, 16, 0xffffffffu), "hidden_size is 4294967295");
    refused(with(whole, 20, 37u), "must have");
    refused(with(whole, 28, 1u << 20), "num_layers is 1048576");
    refused(with(whole, 36, 2u), "no multiple of num_kv_heads");
    refused(with(whole, 40, 13u), "head_dim is odd");
    refused(with(whole, 52, 104u), "bos_id");
    refused(with(whole, 56, 2u), "has_attention_bias");
    refused(with(whole, 60, -1.0f), "rms_norm_eps");
    refused(with(whole, 64, std::nan("")), "rope_theta");
    refused(with(whole, 72, std::uint64_t{7}), "the header says 7");
    refused(with(whole, 80, ~std::uint64_t{0}), "tensor table is cut off");
    refused(with(whole, 80, std::uint64_t{3}), "missing from the tensor table");
    refused(with(whole, first_tensor, std::uint64_t{65}), "no multiple of 64");
    refused(with(whole, first_tensor, std::uint64_t{64}), "overlaps");
    refused(with(whole, first_tensor, ~std::uint64_t{0} << 6), "beyond the file");
    refused(with(whole, first_tensor + 8, std::uint64_t{8}), "upsample has 8 bytes");
    std::uint64_t offset = 0;
    std::memcpy(&offset, whole.data() + first_tensor, sizeof offset);
    refused(with(whole, first_tensor + 16, offset), "upsample_bias overlaps");
    CHECK(throws<std::system_error>([] { facrt::SpeechHeadFile("/nonexistent"); }, "cannot open"));
}

void no_mutation_crashes() {
    const Bytes whole = RandomHead(dims, WeightFormat::int4_32).bytes();
    std::mt19937 random(11);
    for (int i = 0; i < 4000; ++i) {
        Bytes bytes = whole;
        const int changes = 1 + static_cast<int>(random() % 3);
        for (int c = 0; c < changes; ++c) {
            const std::size_t place = random() % (i % 2 == 0 ? 88 : 700);
            bytes[place] = static_cast<char>(random() % 4 == 0 ? random() % 256 : 1u << (random() % 8));
        }
        if (random() % 4 == 0) bytes.resize(random() % bytes.size());
        try {
            open(bytes);
        } catch (const std::runtime_error&) {
        }
    }
}

}  // namespace

int main() {
    a_whole_file_is_read();
    every_fault_has_its_sentence();
    no_mutation_crashes();
}
