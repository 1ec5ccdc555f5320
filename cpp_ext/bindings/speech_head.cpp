#include "facrt/speech_head.hpp"

#include <nanobind/stl/filesystem.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <string>
#include <vector>

#include "arrays.hpp"
#include "bindings.hpp"

namespace facrt::bindings {

using namespace nb::literals;

namespace {

SamplingOptions sampling(float temperature, std::int64_t top_k, double top_p, float repetition_penalty, bool greedy) {
    return {.temperature = temperature,
            .top_k = top_k,
            .top_p = top_p,
            .repetition_penalty = repetition_penalty,
            .greedy = greedy};
}

}  // namespace

void add_speech_head(nb::module_& m) {
    nb::class_<SpeechHeadLoop>(m, "SpeechHeadLoop",
                               R"(The refinement loop: group_size speech tokens per backbone step, all of it in C++.

Ids and logits are the same for any number of threads, and for a prompt with or without a cached beginning. A call that
raises leaves the state as it was before it. Belongs to one thread at a time. Source: SEMANTICS.md 4.)")
        .def(
            "__init__",
            [](SpeechHeadLoop* self, const std::filesystem::path& path, std::size_t num_threads,
               std::size_t max_positions, const std::string& cache) {
                const nb::gil_scoped_release unlocked;
                new (self) SpeechHeadLoop(path, {.num_threads = num_threads,
                                                 .max_positions = max_positions,
                                                 .cache = cache_format_from_name(cache)});
            },
            "path"_a, nb::kw_only(), "num_threads"_a = 1, "max_positions"_a = 4096, "cache"_a = "fp32",
            R"(Maps a speech head file.

max_positions: backbone positions that the KV cache may hold; memory is taken as they are used.
cache: keys and values in "fp32", "fp16" or "int8" (a scale per key and per value).
The environment variable FACRT_ISA forces an instruction set.
Raises OSError when the file cannot be opened, RuntimeError when it is no usable speech head file or FACRT_ISA names
what this processor cannot run, ValueError when an argument is not allowed.)")
        .def_prop_ro("isa", [](const SpeechHeadLoop& self) { return std::string(self.isa()); })
        .def_prop_ro("format", [](const SpeechHeadLoop& self) { return std::string(name_of(self.format())); })
        .def_prop_ro("hidden_size", [](const SpeechHeadLoop& self) { return self.dims().hidden_size; })
        .def_prop_ro("group_size", [](const SpeechHeadLoop& self) { return self.dims().group_size; })
        .def_prop_ro("codebook_size", [](const SpeechHeadLoop& self) { return self.dims().codebook_size; })
        .def_prop_ro("num_positions", &SpeechHeadLoop::num_positions)
        .def_prop_ro("max_positions", &SpeechHeadLoop::max_positions)
        .def_prop_ro("cache_bytes_per_position", &SpeechHeadLoop::cache_bytes_per_position)
        .def(
            "prefill",
            [](SpeechHeadLoop& self, const FloatRows& u, Sampler& sampler, float temperature, std::int64_t top_k,
               double top_p, float repetition_penalty, bool greedy) {
                std::vector<std::int64_t> tokens(self.dims().group_size);
                const nb::gil_scoped_release unlocked;
                self.prefill(view(u), sampler, sampling(temperature, top_k, top_p, repetition_penalty, greedy), tokens);
                return tokens;
            },
            "u"_a.noconvert(), "sampler"_a, nb::kw_only(), "temperature"_a = 1.0f, "top_k"_a = 0, "top_p"_a = 1.0,
            "repetition_penalty"_a = 1.0f, "greedy"_a = false,
            R"(The prompt's positions, u [T, H]; returns the group of the last one. Options as in Sampler.pick.

Raises ValueError for another shape, beyond max_positions, and as Sampler.pick does.)")
        .def(
            "group",
            [](SpeechHeadLoop& self, const Floats& u, Sampler& sampler, float temperature, std::int64_t top_k,
               double top_p, float repetition_penalty, bool greedy) {
                std::vector<std::int64_t> tokens(self.dims().group_size);
                const nb::gil_scoped_release unlocked;
                self.group(view(u), sampler, sampling(temperature, top_k, top_p, repetition_penalty, greedy), tokens);
                return tokens;
            },
            "u"_a.noconvert(), "sampler"_a, nb::kw_only(), "temperature"_a = 1.0f, "top_k"_a = 0, "top_p"_a = 1.0,
            "repetition_penalty"_a = 1.0f, "greedy"_a = false,
            "One backbone step, u [H]; returns group_size tokens. Raises as prefill does.")
        .def(
            "extend",
            [](SpeechHeadLoop& self, const FloatRows& u) {
                const nb::gil_scoped_release unlocked;
                self.extend(view(u));
            },
            "u"_a.noconvert(),
            "The beginning of a prompt, u [T, H], that prefill continues: nothing is chosen. Raises as prefill does.")
        .def("read_weights", &SpeechHeadLoop::read_weights, nb::call_guard<nb::gil_scoped_release>(),
             "Reads the whole weight file once, all threads together; returns a checksum.")
        .def("reset", &SpeechHeadLoop::reset, "Forgets everything.")
        .def("truncate", &SpeechHeadLoop::truncate, "position"_a, "Forgets every backbone position from `position` on.")
        .def(
            "logits",
            [](const SpeechHeadLoop& self, std::size_t i) {
                const std::span<const float> row = self.logits(i);
                return make_array({row.size()}, [&](std::span<float> out) { std::ranges::copy(row, out.begin()); });
            },
            "i"_a, "A copy of the logits [K] of sub-step i of the newest group.");
    m.def("int8_multiply_adds", &int8_multiply_adds, "num_rounds"_a, nb::call_guard<nb::gil_scoped_release>(),
          "Performs num_rounds x 1024 int8 multiply-adds in registers, for benchmarks; returns their sum, scaled.");
}

}  // namespace facrt::bindings
