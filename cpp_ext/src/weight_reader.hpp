#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <span>
#include <string>

#include "facrt/decoder_weights.hpp"

namespace facrt {

// Takes a weight file's header and its tensors one after the other and refuses what does not fit.
class WeightReader {
  public:
    struct Size {
        const char* name;
        std::uint32_t* value;
        bool may_be_zero = false;
    };

    // kind: "speech head", for messages
    WeightReader(std::span<const std::byte> bytes, std::string name, std::string kind)
        : bytes_(bytes), name_(std::move(name)), kind_(std::move(kind)) {}

    [[noreturn]] void refuse(const std::string& fault) const;

    template <class Value>
    Value read() {
        if (bytes_.size() - position_ < sizeof(Value)) refuse("it ends within the header");
        Value value;
        std::memcpy(&value, bytes_.data() + position_, sizeof value);
        position_ += sizeof value;
        return value;
    }

    // Magic number and version, which must be these, and the format of the matrices.
    WeightFormat read_format(const std::array<char, 8>& magic, std::uint32_t version);
    void read_sizes(std::initializer_list<Size> sizes);
    // The file's size, which must be its own, and the number of tensors that follow.
    void read_table();

    void check(const DecoderDims& dims) const;

    const std::byte* tensor(const std::string& what, std::size_t wanted_bytes);
    PackedMatrix matrix(const std::string& what, WeightFormat format, std::size_t rows, std::size_t cols);
    std::span<const float> vector(const std::string& what, std::size_t size);
    DecoderWeights decoder(const DecoderDims& dims, WeightFormat format);
    void finish() const;

  private:
    DecoderLayer layer(const DecoderDims& dims, WeightFormat format, std::size_t index);

    std::span<const std::byte> bytes_;
    std::string name_;
    std::string kind_;
    std::size_t position_ = 0;
    std::uint64_t end_ = 0;  // of the newest tensor
    std::uint64_t remaining_ = 0;
};

}  // namespace facrt
