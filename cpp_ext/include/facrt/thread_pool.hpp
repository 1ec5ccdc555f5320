#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

namespace facrt {

// A fixed number of threads, the caller's among them. Each takes the items of its own stretch of a loop from the front,
// so that it reads memory in order, and then those that others have left, from the back. Waiting threads spin for a
// moment, then sleep. A thread that is not scheduled holds nobody up unless it has begun a turn.
class ThreadPool {
  public:
    explicit ThreadPool(std::size_t num_threads);  // >= 1, else std::invalid_argument
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    std::size_t num_threads() const { return workers_.size() + 1; }

    // item(index, thread) for every index in 0 .. num_items-1, `grain` neighbours per turn; thread < num_threads().
    // num_items < 2^31. Not reentrant, one caller at a time; item must not throw.
    template <class Item>
    void run(std::size_t num_items, std::size_t grain, Item&& item) {
        if (workers_.empty() || num_items <= grain) {
            for (std::size_t i = 0; i < num_items; ++i) item(i, std::size_t{0});
            return;
        }
        using Function = std::remove_reference_t<Item>;
        const auto range = [](void* context, std::size_t first, std::size_t last, std::size_t thread) {
            for (std::size_t i = first; i < last; ++i) (*static_cast<Function*>(context))(i, thread);
        };
        run_turns(num_items, grain, range, &item);
    }

  private:
    using Range = void (*)(void* context, std::size_t first, std::size_t last, std::size_t thread);

    // A thread's stretch of turns; other threads' stretches are on other lines of the cache.
    struct alignas(64) Stretch {
        std::atomic<std::uint64_t> left{0};  // end << 32 | first
    };

    void run_turns(std::size_t num_items, std::size_t grain, Range range, void* context);
    bool take_turns(std::size_t thread);
    void work(std::size_t thread);

    // The job's fields are read only by a thread that has claimed a turn of it, so they cannot change meanwhile.
    Range range_ = nullptr;
    void* context_ = nullptr;
    std::size_t num_items_ = 0;
    std::size_t grain_ = 1;
    std::vector<Stretch> stretches_;
    alignas(64) std::atomic<std::uint64_t> num_done_{0};  // turns
    alignas(64) std::atomic<std::uint32_t> posts_{0};     // what sleepers wait for
    std::atomic<std::uint32_t> num_sleepers_{0};
    std::atomic<bool> stop_{false};
    std::vector<std::thread> workers_;
};

}  // namespace facrt
