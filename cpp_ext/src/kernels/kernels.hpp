#pragma once

#include <cstddef>
#include <cstdint>

// What one instruction set provides. The files that implement it are compiled with their own flags, so they use no
// inline function of the standard library: the linker could keep their copy of it for everybody.
namespace facrt::kernels {

constexpr std::size_t tile_rows = 16;
constexpr std::size_t group_cols = 32;    // activations that share one scale
constexpr std::size_t row_padding = 256;  // strides of activations are multiples of it, zeros behind the values

// Activations that a matrix is multiplied with; the quantized form only for integer weights.
struct Rows {
    const float* values;           // [num_rows, stride]
    const std::int8_t* quantized;  // [num_rows, stride]
    const float* scales;           // [num_rows, stride / 32]
    const std::int32_t* sums;      // [num_rows, stride / 32], of the quantized values of each group
    std::size_t stride;
    std::size_t num_rows;
};

// tile: 16 rows of a PackedMatrix; cols: padded columns; y: [x.num_rows, y_stride], 16 values of each row are written.
// A row's result does not depend on the rows beside it.
using TileProduct = void (*)(const std::byte* tile, std::size_t cols, const Rows& x, float* y, std::size_t y_stride);

struct Kernels {
    const char* name;
    TileProduct products[6];  // by WeightFormat

    // x: [n], n a multiple of 32 -> q [n], scales and sums [n / 32].
    void (*quantize)(const float* x, std::size_t n, std::int8_t* q, float* scales, std::int32_t* sums);
    // y = x / rms(x) * weight, each [n]; y may be x.
    void (*rms_norm)(const float* x, const float* weight, std::size_t n, float eps, float* y);
    // gate = silu(gate) * up, each [16].
    void (*silu_multiply)(float* gate, const float* up);
    // scores = exp(scale * (scores - largest)), [n] with n a multiple of 16; values from num_visible on become 0.
    // Returns their sum.
    float (*softmax)(float* scores, std::size_t num_visible, std::size_t n, float scale);

    // The largest of x [n], n at least 1; NaN where one of them is not finite.
    float (*largest_of_finite)(const float* x, std::size_t n);
    // places = where x [n] is at least `least`, in order; returns how many. There is room for n.
    std::size_t (*find_at_least)(const float* x, std::size_t n, float least, std::uint32_t* places);

    // For benchmarks: reads n bytes (a multiple of 256), and performs n x 16 x 64 int8 multiply-adds in registers.
    std::uint64_t (*read_sweep)(const std::byte* bytes, std::size_t n);
    std::int32_t (*multiply_adds)(std::size_t n);
};

extern const Kernels portable;

// The best for this processor, or the one that the environment variable FACRT_ISA names.
// Throws std::runtime_error for a name that is unknown or that this processor cannot run.
const Kernels& choose();

// Those that this processor can run, best first, ending with nullptr.
const Kernels* const* available();

// Tells the core that this is a spin loop.
void relax();

}  // namespace facrt::kernels
