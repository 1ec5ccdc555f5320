#include "avxvnni_lanes.hpp"

namespace facrt::kernels {
namespace {

struct Processor {
    static __m256i dpbusd(__m256i sum, __m256i w, __m256i x) { return _mm256_dpbusd_avx_epi32(sum, w, x); }
};

}  // namespace

extern const Kernels avxvnni;
constinit const Kernels avxvnni = Generic<AvxVnni<Processor>>::kernels("avxvnni");

}  // namespace facrt::kernels
