#include "facrt/sampler.hpp"

#include <nanobind/stl/optional.h>

#include <optional>

#include "arrays.hpp"
#include "bindings.hpp"

namespace facrt::bindings {

using namespace nb::literals;

void add_sampler(nb::module_& m) {
    nb::class_<Sampler>(
        m, "Sampler",
        R"(Picks ids as Hugging Face's processors do: repetition penalty, temperature, top-k, top-p, one draw.

Holds the random state (64-bit Mersenne twister) and the set of ids that the repetition penalty applies to.
Belongs to one thread at a time. Source: SEMANTICS.md 5.)")
        .def(nb::init<std::uint64_t>(), "seed"_a)
        .def("reseed", &Sampler::reseed, "seed"_a, "Starts the random sequence of another seed; the seen ids stay.")
        .def(
            "remember", [](Sampler& self, const Ids& ids) { self.remember(view(ids)); }, "ids"_a.noconvert(),
            "ids: [n]. Adds them to the seen ids; IndexError outside 0 .. 2**24 - 1.")
        .def("forget", &Sampler::forget, "Empties the set of seen ids.")
        .def(
            "pick",
            [](Sampler& self, const Floats& logits, float temperature, std::int64_t top_k, double top_p,
               float repetition_penalty, const std::optional<Ids>& also_seen, bool greedy) {
                const SamplingOptions options{.temperature = temperature,
                                              .top_k = top_k,
                                              .top_p = top_p,
                                              .repetition_penalty = repetition_penalty,
                                              .greedy = greedy};
                const auto extra = also_seen ? view(*also_seen) : std::span<const std::int64_t>();
                const nb::gil_scoped_release unlocked;
                return self.pick(view(logits), options, extra);
            },
            "logits"_a.noconvert(), nb::kw_only(), "temperature"_a = 1.0f, "top_k"_a = 0, "top_p"_a = 1.0,
            "repetition_penalty"_a = 1.0f, "also_seen"_a.noconvert().none() = nb::none(), "greedy"_a = false,
            R"(One id in 0 .. V - 1.

logits: [V]; also_seen: [m] ids that count as seen for this pick only. top_k 0 and top_p 1 are off.
greedy takes the largest penalised logit, the first of equals. The draw is an inverse CDF in the order of ids.
At top-k's edge all equals stay, at top-p's edge the higher ids.
Raises ValueError when logits hold NaN, +inf or nothing above -inf, or for an option that is not allowed.)");
}

}  // namespace facrt::bindings
