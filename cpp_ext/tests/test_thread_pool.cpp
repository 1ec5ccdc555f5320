#include <chrono>
#include <ctime>
#include <stdexcept>

#include "check.hpp"
#include "facrt/thread_pool.hpp"

namespace {

void every_item_runs_once() {
    for (const std::size_t num_threads : {1, 2, 5}) {
        facrt::ThreadPool pool(num_threads);
        CHECK(pool.num_threads() == num_threads);
        for (std::size_t round = 0; round < 3000; ++round) {
            const std::size_t num_items = round % 40, grain = 1 + round % 7;
            std::vector<int> counts(num_items);  // no two threads have the same item
            std::atomic<std::size_t> strangers{0};
            pool.run(num_items, grain, [&](std::size_t i, std::size_t thread) {
                ++counts[i];
                if (thread >= num_threads) ++strangers;
            });
            for (const int count : counts) CHECK(count == 1);
            CHECK(strangers == 0);
        }
    }
    CHECK(throws<std::invalid_argument>([] { facrt::ThreadPool(0); }, "num_threads"));
}

void it_wakes_up_and_sleeps_again() {
    facrt::ThreadPool pool(3);
    const auto work = [&] {
        std::atomic<int> sum{0};
        pool.run(100, 1, [&](std::size_t i, std::size_t) { sum += static_cast<int>(i); });
        return sum.load();
    };
    CHECK(work() == 4950);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    const std::clock_t before = std::clock();  // of all threads
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    CHECK(std::clock() - before < CLOCKS_PER_SEC / 20);
    CHECK(work() == 4950);
}

}  // namespace

int main() {
    every_item_runs_once();
    it_wakes_up_and_sleeps_again();
}
