#pragma once

#include "kernels/kernels.hpp"
#include "zeroed_buffer.hpp"

namespace facrt {

constexpr std::size_t round_up(std::size_t value, std::size_t step) {
    return (value + step - 1) / step * step;
}

// Rows of float32 with room for their quantized form; behind each row's values are zeros up to the stride.
class Activations {
  public:
    Activations(std::size_t max_rows, std::size_t cols, bool has_quantized, std::size_t padding = kernels::row_padding)
        : stride_(round_up(cols, padding)), values_(max_rows * stride_) {
        if (!has_quantized) return;
        quantized_ = ZeroedBuffer<std::int8_t>(max_rows * stride_);
        scales_ = ZeroedBuffer<float>(max_rows * stride_ / kernels::group_cols);
        sums_ = ZeroedBuffer<std::int32_t>(max_rows * stride_ / kernels::group_cols);
    }

    std::size_t stride() const { return stride_; }
    float* row(std::size_t i) { return values_.data() + i * stride_; }
    const float* row(std::size_t i) const { return values_.data() + i * stride_; }

    // The first `cols` of a row, rounded up to groups of 32. Does nothing where there is no quantized form.
    void quantize(std::size_t i, const kernels::Kernels& kernels, std::size_t cols) {
        if (quantized_.data() == nullptr) return;
        const std::size_t groups = stride_ / kernels::group_cols;
        kernels.quantize(row(i), round_up(cols, kernels::group_cols), quantized_.data() + i * stride_,
                         scales_.data() + i * groups, sums_.data() + i * groups);
    }

    void quantize(std::size_t i, const kernels::Kernels& kernels) { quantize(i, kernels, stride_); }

    kernels::Rows rows(std::size_t num_rows) const { return rows(0, num_rows); }
    kernels::Rows rows(std::size_t first, std::size_t num_rows) const {
        if (quantized_.data() == nullptr) return {row(first), nullptr, nullptr, nullptr, stride_, num_rows};
        const std::size_t groups = stride_ / kernels::group_cols;
        return {row(first),
                quantized_.data() + first * stride_,
                scales_.data() + first * groups,
                sums_.data() + first * groups,
                stride_,
                num_rows};
    }

  private:
    std::size_t stride_;
    ZeroedBuffer<float> values_;
    ZeroedBuffer<std::int8_t> quantized_;
    ZeroedBuffer<float> scales_;
    ZeroedBuffer<std::int32_t> sums_;
};

}  // namespace facrt
