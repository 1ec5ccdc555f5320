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

std::size_t checked(std::size_t num_threads) {
    if (num_threads < 1) throw std::invalid_argument("num_threads 0 must be >= 1");
    return num_threads;
}

constexpr std::uint64_t one_at_the_end = std::uint64_t{1} << 32;

// Claims a turn of a stretch, the first or the last; false when none is left.
bool claim(std::atomic<std::uint64_t>& left, bool from_front, std::size_t& turn) {
    std::uint64_t seen = left.load(std::memory_order_relaxed), rest;
    do {
        const std::uint64_t first = seen & 0xffffffffu, end = seen >> 32;
        if (first >= end) return false;
        turn = static_cast<std::size_t>(from_front ? first : end - 1);
        rest = from_front ? seen + 1 : seen - one_at_the_end;
    } while (!left.compare_exchange_weak(seen, rest, std::memory_order_acq_rel, std::memory_order_relaxed));
    return true;
}

}  // namespace

ThreadPool::ThreadPool(std::size_t num_threads) : stretches_(checked(num_threads)) {
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
    for (std::size_t i = 0; i < stretches_.size(); ++i) {
        const std::uint64_t first = num_turns * i / stretches_.size(), end = num_turns * (i + 1) / stretches_.size();
        stretches_[i].left.store(end << 32 | first, std::memory_order_release);
    }
    posts_.fetch_add(1);
    if (num_sleepers_.load() != 0) posts_.notify_all();
    take_turns(0);
    for (int i = 0; num_done_.load(std::memory_order_acquire) != num_turns; ++i) {
        if (i < spins_before_yield) {
            kernels::relax();
        } else {
            std::this_thread::yield();
        }
    }
}

bool ThreadPool::take_turns(std::size_t thread) {
    std::uint64_t num_taken = 0;
    for (std::size_t i = 0; i < stretches_.size(); ++i) {
        std::size_t turn;
        while (claim(stretches_[(thread + i) % stretches_.size()].left, i == 0, turn)) {
            range_(context_, turn * grain_, std::min((turn + 1) * grain_, num_items_), thread);
            ++num_taken;
        }
    }
    if (num_taken != 0) num_done_.fetch_add(num_taken, std::memory_order_release);
    return num_taken != 0;
}

void ThreadPool::work(std::size_t thread) {
    using Clock = std::chrono::steady_clock;
    while (!stop_.load()) {
        const std::uint32_t seen = posts_.load();
        if (take_turns(thread)) continue;
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
