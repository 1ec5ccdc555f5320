#include "facrt/embedding_table.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>

namespace facrt {
namespace {

constexpr std::size_t tile_cols = 512;  // one accumulator tile stays in the first-level cache

template <DType dtype>
float load(const std::byte* item) {
    if constexpr (dtype == DType::float32) {
        float value;
        std::memcpy(&value, item, sizeof value);
        return value;
    } else {
        std::uint16_t bits;
        std::memcpy(&bits, item, sizeof bits);
        return dtype == DType::float16 ? float16_to_float(bits) : bfloat16_to_float(bits);
    }
}

template <class Visit>
void dispatch(DType dtype, Visit visit) {
    switch (dtype) {
        case DType::float32:
            return visit.template operator()<DType::float32>();
        case DType::float16:
            return visit.template operator()<DType::float16>();
        case DType::bfloat16:
            return visit.template operator()<DType::bfloat16>();
    }
}

// Rows lie anywhere in the table, and a processor's own prefetching begins anew on each page. Addresses behind the
// table's end are harmless.
void fetch(const std::byte* bytes, std::size_t size) {
    for (std::size_t i = 0; i < size; i += 64) __builtin_prefetch(bytes + i);
}

// Calls finish(first column, means of columns first .. first + count) tile by tile.
template <DType dtype, class Finish>
void mean_of_rows(const std::byte* table, std::size_t cols, std::span<const std::int64_t> ids, Finish finish) {
    constexpr std::size_t tile_bytes = tile_cols * itemsize_bytes(dtype);
    const auto num_rows = static_cast<float>(ids.size());
    for (const std::int64_t id : ids) {
        fetch(table + static_cast<std::size_t>(id) * cols * itemsize_bytes(dtype), tile_bytes);
    }
    std::array<float, tile_cols> sum;
    for (std::size_t first = 0; first < cols; first += tile_cols) {
        const std::size_t count = std::min(tile_cols, cols - first);
        std::fill_n(sum.begin(), count, 0.0f);
        for (const std::int64_t id : ids) {
            const std::byte* row = table + (static_cast<std::size_t>(id) * cols + first) * itemsize_bytes(dtype);
            fetch(row + tile_bytes, tile_bytes);  // of the next tile
            for (std::size_t c = 0; c < count; ++c) sum[c] += load<dtype>(row + c * itemsize_bytes(dtype));
        }
        for (std::size_t c = 0; c < count; ++c) sum[c] /= num_rows;
        finish(first, std::span<const float>(sum.data(), count));
    }
}

void check_size(const char* what, std::size_t found, std::size_t wanted) {
    if (found != wanted) {
        throw std::invalid_argument(std::string(what) + " has " + std::to_string(found) + " values, must have " +
                                    std::to_string(wanted));
    }
}

std::span<const std::byte> table_bytes(const MappedFile& file, const std::filesystem::path& path, std::int64_t rows,
                                       std::int64_t cols, DType dtype, std::int64_t offset) {
    if (rows <= 0 || cols <= 0 || offset < 0) {
        throw std::invalid_argument("rows " + std::to_string(rows) + ", cols " + std::to_string(cols) + ", offset " +
                                    std::to_string(offset) + ": rows and cols must be > 0, offset >= 0");
    }
    const std::size_t size = file.bytes().size();
    const auto start = static_cast<std::size_t>(offset);
    const std::size_t available = start <= size ? size - start : 0;
    const std::size_t available_rows = available / itemsize_bytes(dtype) / static_cast<std::size_t>(cols);
    if (available_rows < static_cast<std::size_t>(rows)) {
        throw std::invalid_argument(path.string() + " has " + std::to_string(size) + " bytes, too few for " +
                                    std::to_string(rows) + " rows of " + std::to_string(cols) + " items of " +
                                    std::to_string(itemsize_bytes(dtype)) + " bytes from byte " +
                                    std::to_string(offset));
    }
    return file.bytes().subspan(
        start, static_cast<std::size_t>(rows) * static_cast<std::size_t>(cols) * itemsize_bytes(dtype));
}

}  // namespace

EmbeddingTable::EmbeddingTable(const std::filesystem::path& path, std::int64_t rows, std::int64_t cols, DType dtype,
                               std::int64_t offset)
    : file_(path),
      table_(table_bytes(file_, path, rows, cols, dtype, offset)),
      rows_(rows),
      cols_(cols),
      dtype_(dtype) {}

void EmbeddingTable::check_ids(std::span<const std::int64_t> ids) const {
    for (const std::int64_t id : ids) {
        if (id < 0 || id >= rows_) {
            throw std::out_of_range("id " + std::to_string(id) + " is outside 0 .. " + std::to_string(rows_ - 1));
        }
    }
}

void EmbeddingTable::gather(std::span<const std::int64_t> ids, std::span<float> out) const {
    const auto cols = static_cast<std::size_t>(cols_);
    check_size("out", out.size(), ids.size() * cols);
    check_ids(ids);
    dispatch(dtype_, [&]<DType dtype>() {
        float* target = out.data();
        for (const std::int64_t id : ids) {
            const std::byte* row = table_.data() + static_cast<std::size_t>(id) * cols * itemsize_bytes(dtype);
            for (std::size_t c = 0; c < cols; ++c) target[c] = load<dtype>(row + c * itemsize_bytes(dtype));
            target += cols;
        }
    });
}

void EmbeddingTable::group_mean(std::span<const std::int64_t> ids, std::int64_t group_size,
                                std::span<float> out) const {
    const auto cols = static_cast<std::size_t>(cols_);
    if (group_size <= 0 || ids.size() % static_cast<std::size_t>(group_size) != 0) {
        throw std::invalid_argument("group_size " + std::to_string(group_size) + " must be > 0 and divide the " +
                                    std::to_string(ids.size()) + " ids");
    }
    const auto group = static_cast<std::size_t>(group_size);
    check_size("out", out.size(), ids.size() / group * cols);
    check_ids(ids);
    dispatch(dtype_, [&]<DType dtype>() {
        for (std::size_t g = 0; g < ids.size() / group; ++g) {
            float* target = out.data() + g * cols;
            mean_of_rows<dtype>(table_.data(), cols, ids.subspan(g * group, group),
                                [&](std::size_t first, std::span<const float> mean) {
                                    std::copy(mean.begin(), mean.end(), target + first);
                                });
        }
    });
}

void EmbeddingTable::group_average(std::span<const std::int64_t> ids, std::span<const float> text_row,
                                   std::span<float> out) const {
    const auto cols = static_cast<std::size_t>(cols_);
    if (ids.empty()) throw std::invalid_argument("a group of 0 ids has no mean, must have at least 1");
    check_size("text_row", text_row.size(), cols);
    check_size("out", out.size(), cols);
    check_ids(ids);
    dispatch(dtype_, [&]<DType dtype>() {
        mean_of_rows<dtype>(table_.data(), cols, ids, [&](std::size_t first, std::span<const float> mean) {
            for (std::size_t c = 0; c < mean.size(); ++c) {
                out[first + c] = (text_row[first + c] + mean[c]) * 0.5f;
            }
        });
    });
}

}  // namespace facrt
