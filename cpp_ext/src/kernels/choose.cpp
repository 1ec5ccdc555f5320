#include <cstdlib>
#include <stdexcept>
#include <string>

#include "kernels.hpp"

namespace facrt::kernels {

const Kernels& choose() {
    const Kernels* const* list = available();
    const char* wanted = std::getenv("FACRT_ISA");
    if (wanted == nullptr || *wanted == '\0') return **list;
    std::string names;
    for (; *list != nullptr; ++list) {
        if (std::string((*list)->name) == wanted) return **list;
        names += (names.empty() ? "" : ", ") + std::string((*list)->name);
    }
    throw std::runtime_error("FACRT_ISA is \"" + std::string(wanted) + "\"; this processor can run: " + names);
}

}  // namespace facrt::kernels
