#include "facrt/dtype.hpp"

#include <stdexcept>
#include <string>

namespace facrt {

DType dtype_from_name(std::string_view name) {
    if (name == "float32") return DType::float32;
    if (name == "float16") return DType::float16;
    if (name == "bfloat16") return DType::bfloat16;
    throw std::invalid_argument("dtype '" + std::string(name) + "' is not one of float32, float16, bfloat16");
}

}  // namespace facrt
