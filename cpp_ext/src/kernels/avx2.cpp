#include "avx2_lanes.hpp"

namespace facrt::kernels {
namespace {

// For few rows: the |x| of a product serves both halves of a tile's row, where |w| serves the rows of a block.
struct FewRows : Avx2Lanes {
    static I dot_int8(I sum, B w, std::int32_t x) {
        const __m256i bytes = _mm256_set1_epi32(x), signed_w = _mm256_sign_epi8(without_bias(w), bytes);
        return add_pairs(sum, _mm256_maddubs_epi16(_mm256_abs_epi8(bytes), signed_w));
    }
};

struct Avx2 : Paired<FewRows> {
    using Block = Avx2Lanes;
    static constexpr int block_rows = 4;
    static constexpr int chain_rows = 6;
    static constexpr int num_sums = 8;
};

}  // namespace

extern const Kernels avx2;
constinit const Kernels avx2 = Generic<Avx2>::kernels("avx2");

}  // namespace facrt::kernels
