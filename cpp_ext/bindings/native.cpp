#include <nanobind/nanobind.h>

#include <system_error>

#include "bindings.hpp"

namespace {

void raise_os_error(const std::exception_ptr& error, void*) {
    try {
        std::rethrow_exception(error);
    } catch (const std::system_error& e) {
        const nanobind::object arguments = nanobind::make_tuple(e.code().value(), e.what());
        PyErr_SetObject(PyExc_OSError, arguments.ptr());
    }
}

}  // namespace

NB_MODULE(_native, m) {
    m.doc() =
        "The C++ kernels of the runtime: C-contiguous NumPy arrays in and out, the GIL released while they compute.";
    nanobind::register_exception_translator(raise_os_error);
    facrt::bindings::add_log_mel(m);
    facrt::bindings::add_embedding_table(m);
    facrt::bindings::add_hidden_split(m);
    facrt::bindings::add_sampler(m);
    facrt::bindings::add_backbone(m);
    facrt::bindings::add_speech_head(m);
}
