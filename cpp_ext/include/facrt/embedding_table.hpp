#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "facrt/dtype.hpp"
#include "facrt/mapped_file.hpp"

namespace facrt {

// Rows of a [rows, cols] table that stays in its file; every method may be called from several threads at once.
class EmbeddingTable {
  public:
    // The table starts `offset` bytes into the file, row-major, little-endian.
    // Throws std::invalid_argument when the file is shorter than offset + rows * cols * itemsize.
    EmbeddingTable(const std::filesystem::path& path, std::int64_t rows, std::int64_t cols, DType dtype,
                   std::int64_t offset = 0);

    std::int64_t rows() const { return rows_; }
    std::int64_t cols() const { return cols_; }
    DType dtype() const { return dtype_; }

    // ids: [n], out: [n, cols].
    // Here and below: std::out_of_range for an id outside 0 .. rows-1, std::invalid_argument for a wrong shape.
    void gather(std::span<const std::int64_t> ids, std::span<float> out) const;

    // ids: [n], out: [n / group_size, cols], the mean of every group_size rows.  SEMANTICS.md 3
    void group_mean(std::span<const std::int64_t> ids, std::int64_t group_size, std::span<float> out) const;

    // ids: [group_size], text_row and out: [cols]; out = (text_row + mean) / 2, may be text_row.  SEMANTICS.md 5
    void group_average(std::span<const std::int64_t> ids, std::span<const float> text_row, std::span<float> out) const;

  private:
    void check_ids(std::span<const std::int64_t> ids) const;

    MappedFile file_;
    std::span<const std::byte> table_;  // [rows, cols] of dtype
    std::int64_t rows_;
    std::int64_t cols_;
    DType dtype_;
};

}  // namespace facrt
