#include "facrt/embedding_table.hpp"

#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/string.h>

#include <stdexcept>
#include <string>

#include "arrays.hpp"
#include "bindings.hpp"

namespace facrt::bindings {

using namespace nb::literals;

void add_embedding_table(nb::module_& m) {
    nb::class_<EmbeddingTable>(
        m, "EmbeddingTable",
        R"(Rows of a [rows, cols] table that stays in its file: memory-mapped, read-only, never copied.

ids are int64 in 0 .. rows - 1, else IndexError. Results are float32. Usable from several threads at once.)")
        .def(
            "__init__",
            [](EmbeddingTable* self, const std::filesystem::path& path, std::int64_t rows, std::int64_t cols,
               const std::string& dtype,
               std::int64_t offset) { new (self) EmbeddingTable(path, rows, cols, dtype_from_name(dtype), offset); },
            "path"_a, "rows"_a, "cols"_a, "dtype"_a, "offset"_a = 0,
            R"(Maps the row-major little-endian table that starts `offset` bytes into the file.

dtype: "float32", "float16" or "bfloat16".
Raises OSError when the file cannot be opened, ValueError when it is too short or an argument is not allowed.)")
        .def_prop_ro("rows", &EmbeddingTable::rows)
        .def_prop_ro("cols", &EmbeddingTable::cols)
        .def(
            "gather",
            [](const EmbeddingTable& self, const Ids& ids) {
                return make_array({ids.size(), static_cast<std::size_t>(self.cols())},
                                  [&](std::span<float> out) { self.gather(view(ids), out); });
            },
            "ids"_a.noconvert(), "ids: [n]. Returns [n, cols].")
        .def(
            "gather_into",
            [](const EmbeddingTable& self, const Ids& ids, const OutFloatRows& out) {
                if (static_cast<std::int64_t>(out.shape(1)) != self.cols()) {
                    throw std::invalid_argument("out has " + std::to_string(out.shape(1)) + " columns, must have " +
                                                std::to_string(self.cols()));
                }
                const nb::gil_scoped_release unlocked;
                self.gather(view(ids), view(out));
            },
            "ids"_a.noconvert(), "out"_a.noconvert(), "gather into out [n, cols].")
        .def(
            "group_mean",
            [](const EmbeddingTable& self, const Ids& ids, std::int64_t group_size) {
                const std::size_t num_groups = group_size > 0 ? ids.size() / static_cast<std::size_t>(group_size) : 0;
                return make_array({num_groups, static_cast<std::size_t>(self.cols())},
                                  [&](std::span<float> out) { self.group_mean(view(ids), group_size, out); });
            },
            "ids"_a.noconvert(), "group_size"_a,
            "ids: [n]. Returns [n / group_size, cols], the mean of every group_size rows; ValueError unless n divides.")
        .def(
            "group_average",
            [](const EmbeddingTable& self, const Ids& ids, const Floats& text_row) {
                return make_array({static_cast<std::size_t>(self.cols())},
                                  [&](std::span<float> out) { self.group_average(view(ids), view(text_row), out); });
            },
            "ids"_a.noconvert(), "text_row"_a.noconvert(),
            "ids: [group_size], text_row: [cols]. Returns [cols]: (text_row + mean of the rows) / 2.")
        .def(
            "group_average_into",
            [](const EmbeddingTable& self, const Ids& ids, const Floats& text_row, const OutFloats& out) {
                const nb::gil_scoped_release unlocked;
                self.group_average(view(ids), view(text_row), view(out));
            },
            "ids"_a.noconvert(), "text_row"_a.noconvert(), "out"_a.noconvert(),
            "group_average into out [cols], which may be text_row itself.");
}

}  // namespace facrt::bindings
