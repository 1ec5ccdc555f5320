#pragma once

#include <atomic>
#include <cstdint>
#include <span>

#include "facrt/thread_pool.hpp"
#include "kernels/kernels.hpp"

namespace facrt {

// Reads all bytes once, all threads together; returns a checksum.
inline std::uint64_t read_all(std::span<const std::byte> bytes, ThreadPool& pool, const kernels::Kernels& kernels) {
    constexpr std::size_t turn_bytes = 65536;
    const std::size_t num_turns = bytes.size() / turn_bytes;
    std::atomic<std::uint64_t> sum{0};
    pool.run(num_turns, 1, [&](std::size_t i, std::size_t) {
        sum.fetch_add(kernels.read_sweep(bytes.data() + i * turn_bytes, turn_bytes), std::memory_order_relaxed);
    });
    const std::span<const std::byte> rest = bytes.subspan(num_turns * turn_bytes);
    return sum.load() + kernels.read_sweep(rest.data(), rest.size() / 256 * 256);
}

}  // namespace facrt
