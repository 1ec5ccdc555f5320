#include "facrt/backbone.hpp"

#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/string.h>

#include <string>

#include "arrays.hpp"
#include "bindings.hpp"

namespace facrt::bindings {

using namespace nb::literals;

void add_backbone(nb::module_& m) {
    nb::class_<Backbone>(m, "Backbone",
                         R"(The dense text model on rows of embeddings, all of it in C++.

Results are the same bits for any number of threads, and for rows given at once or in parts. A call that raises leaves
the state as it was before it. Belongs to one thread at a time. Source: SEMANTICS.md 4.)")
        .def(
            "__init__",
            [](Backbone* self, const std::filesystem::path& path, std::size_t num_threads, std::size_t max_positions,
               const std::string& cache) {
                const nb::gil_scoped_release unlocked;
                new (self) Backbone(path, {.num_threads = num_threads,
                                           .max_positions = max_positions,
                                           .cache = cache_format_from_name(cache)});
            },
            "path"_a, nb::kw_only(), "num_threads"_a = 1, "max_positions"_a = 4096, "cache"_a = "fp32",
            R"(Maps a backbone file.

max_positions: that the KV cache may hold; memory is taken as they are used.
cache: keys and values in "fp32", "fp16" or "int8" (a scale per key and per value).
The environment variable FACRT_ISA forces an instruction set.
Raises OSError when the file cannot be opened, RuntimeError when it is no usable backbone file or FACRT_ISA names what
this processor cannot run, ValueError when an argument is not allowed.)")
        .def_prop_ro("isa", [](const Backbone& self) { return std::string(self.isa()); })
        .def_prop_ro("format", [](const Backbone& self) { return std::string(name_of(self.format())); })
        .def_prop_ro("hidden_size", [](const Backbone& self) { return self.dims().hidden_size; })
        .def_prop_ro("num_layers", [](const Backbone& self) { return self.dims().num_layers; })
        .def_prop_ro("vocab_size", &Backbone::vocab_size)
        .def_prop_ro("num_positions", &Backbone::num_positions)
        .def_prop_ro("max_positions", &Backbone::max_positions)
        .def_prop_ro("cache_bytes_per_position", &Backbone::cache_bytes_per_position)
        .def(
            "forward_into",
            [](Backbone& self, const FloatRows& embeds, const OutFloatRows& hidden, const OutFloats& logits) {
                const nb::gil_scoped_release unlocked;
                self.forward(view(embeds), view(hidden), view(logits));
            },
            "embeds"_a.noconvert(), "hidden"_a.noconvert(), "logits"_a.noconvert(),
            R"(Runs new positions: embeds [S, H] -> hidden [S, H] after the final norm, and logits [V] of the last one.

Raises ValueError for another shape, NaN or infinity, and beyond max_positions.)")
        .def("truncate", &Backbone::truncate, "position"_a, "Forgets every position from `position` on.")
        .def("read_weights", &Backbone::read_weights, nb::call_guard<nb::gil_scoped_release>(),
             "Reads the whole weight file once, all threads together; returns a checksum.");
}

}  // namespace facrt::bindings
