#pragma once

#include "avx2_lanes.hpp"

namespace facrt::kernels {
namespace {

// AVX2 with Instruction::dpbusd, unsigned bytes times signed bytes added up in fours: VEX-coded VNNI, or what a test
// puts in its place.
template <class Instruction>
struct AvxVnniLanes : Avx2Lanes {
    static I start_int8(std::int32_t sum) { return broadcast_int(-128 * sum); }
    static I dot_int8(I sum, B w, std::int32_t x) { return Instruction::dpbusd(sum, w, _mm256_set1_epi32(x)); }
    static I start_uint4(std::int32_t start) { return broadcast_int(start); }
    static I dot_uint4(I sum, B w, std::int32_t x) { return dot_int8(sum, w, x); }
    static I finish_uint4(I sum, std::int32_t) { return sum; }
};

template <class Instruction>
struct AvxVnni : Paired<AvxVnniLanes<Instruction>> {
    using Block = AvxVnniLanes<Instruction>;
    static constexpr int block_rows = 4;
    static constexpr int chain_rows = 6;
    static constexpr int num_sums = 8;
};

}  // namespace
}  // namespace facrt::kernels
