#include "neon_lanes.hpp"

namespace facrt::kernels {
namespace {

struct Neon : Paired<Paired<NeonLanes>> {
    using Block = Paired<NeonLanes>;
    static constexpr int block_rows = 4;
    static constexpr int chain_rows = 0;
    static constexpr int num_sums = 8;
};

}  // namespace

extern const Kernels neon;
constinit const Kernels neon = Generic<Neon>::kernels("neon");

}  // namespace facrt::kernels
