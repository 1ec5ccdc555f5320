#include "avx2_lanes.hpp"

namespace facrt::kernels {
namespace {

struct Avx2 : Paired<Avx2Lanes> {
    using Block = Avx2Lanes;
    static constexpr int block_rows = 4;
    static constexpr int num_sums = 8;
};

}  // namespace

extern const Kernels avx2;
constinit const Kernels avx2 = Generic<Avx2>::kernels("avx2");

}  // namespace facrt::kernels
