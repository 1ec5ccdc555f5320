#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <type_traits>

namespace facrt::bindings {

namespace nb = nanobind;

template <class Item, std::size_t num_dims>
using Array = nb::ndarray<Item, nb::numpy, nb::ndim<num_dims>, nb::c_contig, nb::device::cpu>;

using Floats = Array<const float, 1>;
using FloatRows = Array<const float, 2>;
using Ids = Array<const std::int64_t, 1>;
using OutFloats = Array<float, 1>;
using OutFloatRows = Array<float, 2>;

template <class Item, class... Traits>
std::span<Item> view(const nb::ndarray<Item, Traits...>& array) {
    return {array.data(), array.size()};
}

// A NumPy float32 array of this shape that owns its memory, filled by fill(span) without the GIL.
template <std::size_t num_dims, class Fill>
Array<float, num_dims> make_array(const std::size_t (&shape)[num_dims], Fill fill) {
    std::size_t size = 1;
    for (const std::size_t length : shape) size *= length;
    auto values = std::make_unique_for_overwrite<float[]>(size);
    {
        const nb::gil_scoped_release unlocked;
        fill(std::span<float>(values.get(), size));
    }
    const nb::capsule owner(values.get(), [](void* pointer) noexcept { delete[] static_cast<float*>(pointer); });
    return {values.release(), num_dims, shape, owner};
}

}  // namespace facrt::bindings
