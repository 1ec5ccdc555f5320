#include <unistd.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <limits>
#include <system_error>
#include <vector>

#include "check.hpp"
#include "facrt/embedding_table.hpp"

namespace {

class TemporaryFile {
  public:
    template <class Item>
    explicit TemporaryFile(const std::vector<Item>& items, std::size_t offset = 0)
        : path_(std::filesystem::temp_directory_path() /
                ("facrt_table_" + std::to_string(::getpid()) + "_" + std::to_string(count++))) {
        std::ofstream file(path_, std::ios::binary);
        file << std::string(offset, '\x7f');
        file.write(reinterpret_cast<const char*>(items.data()),
                   static_cast<std::streamsize>(items.size() * sizeof(Item)));
    }
    ~TemporaryFile() { std::filesystem::remove(path_); }
    const std::filesystem::path& path() const { return path_; }

  private:
    static inline int count = 0;
    std::filesystem::path path_;
};

void narrow_floats_widen_exactly() {
    CHECK(facrt::float16_to_float(0x3c00) == 1.0f);
    CHECK(facrt::float16_to_float(0xc500) == -5.0f);
    CHECK(facrt::float16_to_float(0x0001) == 0x1p-24f);
    CHECK(facrt::float16_to_float(0x7bff) == 65504.0f);
    CHECK(facrt::float16_to_float(0xfc00) == -std::numeric_limits<float>::infinity());
    CHECK(std::isnan(facrt::float16_to_float(0x7e00)));
    CHECK(std::signbit(facrt::float16_to_float(0x8000)));
    CHECK(facrt::bfloat16_to_float(0xbfc0) == -1.5f);
}

void rows_come_out_as_they_went_in() {
    const std::int64_t rows = 7, cols = 1100;  // more than one tile
    std::vector<float> items(rows * cols);
    for (std::size_t i = 0; i < items.size(); ++i) items[i] = std::sin(static_cast<float>(i));
    const TemporaryFile file(items, 3);
    const facrt::EmbeddingTable table(file.path(), rows, cols, facrt::DType::float32, 3);

    const std::vector<std::int64_t> ids{6, 0, 6, 3, 2, 1};
    std::vector<float> gathered(6 * cols), means(2 * cols), average(cols);
    table.gather(ids, gathered);
    table.group_mean(ids, 3, means);
    for (std::size_t c = 0; c < cols; ++c) {
        for (std::size_t i = 0; i < 6; ++i) CHECK(gathered[i * cols + c] == items[std::size_t(ids[i]) * cols + c]);
        for (std::size_t g = 0; g < 2; ++g) {
            const float* row = &gathered[g * 3 * cols + c];
            CHECK(means[g * cols + c] == (row[0] + row[cols] + row[2 * cols]) / 3.0f);
        }
        average[c] = static_cast<float>(c);
    }
    table.group_average(std::span(ids).first(3), average, average);
    for (std::size_t c = 0; c < cols; ++c) CHECK(average[c] == (static_cast<float>(c) + means[c]) * 0.5f);
}

void half_width_tables_are_read() {
    const TemporaryFile file(std::vector<std::uint16_t>{0x3c00, 0x4000, 0x3f80, 0x4040});
    std::vector<float> row(2);
    const std::vector<std::int64_t> first{0}, second{1};
    facrt::EmbeddingTable(file.path(), 2, 2, facrt::dtype_from_name("float16")).gather(first, row);
    CHECK(row[0] == 1.0f && row[1] == 2.0f);
    facrt::EmbeddingTable(file.path(), 2, 2, facrt::dtype_from_name("bfloat16")).gather(second, row);
    CHECK(row[0] == 1.0f && row[1] == 3.0f);
}

void what_does_not_fit_is_refused() {
    using facrt::DType, facrt::EmbeddingTable, std::invalid_argument;
    const TemporaryFile file(std::vector<float>(12));
    const auto open = [&](std::int64_t rows, std::int64_t cols, std::int64_t offset) {
        return EmbeddingTable(file.path(), rows, cols, DType::float32, offset);
    };
    open(3, 4, 0);
    CHECK(throws<invalid_argument>([&] { open(4, 4, 0); }, "has 48 bytes"));
    CHECK(throws<invalid_argument>([&] { open(3, 4, 1); }, "from byte 1"));
    CHECK(throws<invalid_argument>([&] { open(std::int64_t{1} << 62, 1 << 20, 0); }, "too few"));
    CHECK(throws<invalid_argument>([&] { open(1, 1, std::numeric_limits<std::int64_t>::max()); }, "too few"));
    CHECK(throws<invalid_argument>([&] { open(0, 4, 0); }, "must be > 0"));
    CHECK(throws<invalid_argument>([&] { open(3, 4, -1); }, "offset >= 0"));
    CHECK(throws<invalid_argument>([] { facrt::dtype_from_name("int8"); }, "float32, float16, bfloat16"));
    CHECK(throws<std::system_error>([] { EmbeddingTable("/no/such/file", 1, 1, DType::float32); }, "/no/such/file"));
    CHECK(throws<invalid_argument>([] { EmbeddingTable("/", 1, 1, DType::float32); }, "not a regular file"));
    const TemporaryFile empty(std::vector<float>{});
    CHECK(throws<invalid_argument>([&] { EmbeddingTable(empty.path(), 1, 1, DType::float32); }, "has 0 bytes"));
}

void ids_and_shapes_are_checked() {
    using std::invalid_argument, std::out_of_range;
    const TemporaryFile file(std::vector<float>(12));
    const facrt::EmbeddingTable table(file.path(), 3, 4, facrt::DType::float32);
    std::vector<float> out(8), text(4);
    const std::vector<std::int64_t> low{0, -1}, high{3, 0}, good{0, 2};
    CHECK(throws<out_of_range>([&] { table.gather(low, out); }, "id -1 is outside 0 .. 2"));
    CHECK(throws<out_of_range>([&] { table.gather(high, out); }, "id 3 is outside 0 .. 2"));
    CHECK(throws<invalid_argument>([&] { table.gather(good, text); }, "must have 8"));
    CHECK(throws<invalid_argument>([&] { table.group_mean(good, 3, out); }, "divide the 2 ids"));
    CHECK(throws<invalid_argument>([&] { table.group_mean(good, 0, out); }, "must be > 0"));
    CHECK(throws<invalid_argument>([&] { table.group_average({}, text, text); }, "0 ids"));
    CHECK(throws<invalid_argument>([&] { table.group_average(good, out, text); }, "text_row has 8"));
}

}  // namespace

int main() {
    narrow_floats_widen_exactly();
    rows_come_out_as_they_went_in();
    half_width_tables_are_read();
    what_does_not_fit_is_refused();
    ids_and_shapes_are_checked();
}
