#include "facrt/thread_pool.hpp"

#include <algorithm>
#include <chrono>
#include <stdexcept>

#include "kernels/kernels.hpp"

namespace facrt {
namespace {

constexpr std::chrono::microseconds spin_time{200};  // longer than the serial stretches within a group
constexpr int spins_between_looks = 32;              // at the clock
constexpr int spins_before_yield = 2048;

}  // namespace

ThreadPool::ThreadPool(std::size_t num_threads) {
    if (num_threads < 1) throw std::invalid_argument("num_threads 0 must be >= 1");
    for (std::size_t i = 1; i < num_threads; ++i) workers_.emplace_back([this, i] { work(i); });
}

ThreadPool::~ThreadPool() {
    stop_.store(true);
    posts_.fetch_add(1);
    posts_.notify_all();
    for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run_turns(std::size_t num_items, std::size_t grain, Range range, void* context) {
    range_ = range;
    context_ = context;
    num_items_ = num_items;
    grain_ = grain;
    const std::uint64_t num_turns = (num_items + grain - 1) / grain;
    num_done_.store(0, std::memory_order_relaxed);
    claims_.store(num_turns << 32, std::memory_order_release);
    posts_.fetch_add(1);
    if (num_sleepers_.load() != 0) posts_.notify_all();
    while (take_turn(0)) {
    }
    for (int i = 0; num_done_.load(std::memory_order_acquire) != num_turns; ++i) {
        if (i < spins_before_yield) {
            kernels::relax();
        } else {
            std::this_thread::yield();
        }
    }
}

bool ThreadPool::take_turn(std::size_t thread) {
    std::uint64_t claims = claims_.load(std::memory_order_relaxed);
    do {
        if ((claims & 0xffffffffu) >= claims >> 32) return false;
    } while (!claims_.compare_exchange_weak(claims, claims + 1, std::memory_order_acq_rel, std::memory_order_relaxed));
    const std::size_t first = static_cast<std::size_t>(claims & 0xffffffffu) * grain_;
    range_(context_, first, std::min(first + grain_, num_items_), thread);
    num_done_.fetch_add(1, std::memory_order_release);
    return true;
}

void ThreadPool::work(std::size_t thread) {
    using Clock = std::chrono::steady_clock;
    while (!stop_.load()) {
        const std::uint32_t seen = posts_.load();
        if (take_turn(thread)) continue;
        const auto until = Clock::now() + spin_time;
        bool posted = false;
        while (!posted && Clock::now() < until) {
            for (int i = 0; i < spins_between_looks && !posted; ++i) {
                kernels::relax();
                posted = posts_.load(std::memory_order_relaxed) != seen;
            }
        }
        if (posted) continue;
        num_sleepers_.fetch_add(1);
        posts_.wait(seen);
        num_sleepers_.fetch_sub(1);
    }
}

}  // namespace facrt
