// The locks of C++, held over waits, in threads of any kind: what tests/monkey_c_locks.rs compiles, loads and calls.
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <shared_mutex>
#include <stdexcept>

namespace {
std::mutex plain;
std::recursive_mutex recursive;
std::timed_mutex timed;
std::shared_mutex shared;
std::condition_variable filled, emptied;
std::condition_variable_any any;
std::mutex queue_lock;
int queue, round_of_any;
std::atomic<int> inside[4], errors, tries;
std::once_flag once, once_that_throws;
std::atomic<int> runs;

// Is alone inside, for a while in which others run.
void alone(int which) {
    if (inside[which].fetch_add(1) != 0) errors++;
    usleep(20);
    if (inside[which].fetch_sub(1) != 1) errors++;
}

void run_routines() {
    std::call_once(once, [] {
        usleep(2000);
        runs++;
    });
    if (runs != 1) errors++;
    // The routine throws twice, and then returns.
    for (;;) {
        try {
            std::call_once(once_that_throws, [] {
                usleep(500);
                if (tries++ < 2) throw std::runtime_error("again");
            });
            break;
        } catch (const std::runtime_error &) {
        }
    }
    if (tries != 3) errors++;
}
}  // namespace

// Does a thread's part, and returns how many errors there have been in all threads.
extern "C" int locks_of_cpp(int number, int rounds) {
    run_routines();
    for (int round = 0; round < rounds; round++) {
        {
            std::lock_guard<std::mutex> lock(plain);
            alone(0);
        }
        {
            std::lock_guard<std::recursive_mutex> outer(recursive);
            std::lock_guard<std::recursive_mutex> inner(recursive);
            alone(1);
        }
        {
            std::unique_lock<std::timed_mutex> lock(timed, std::chrono::microseconds(300));
            if (lock.owns_lock()) alone(2);
        }
        if ((round + number) % 4 == 0) {
            std::unique_lock<std::shared_mutex> lock(shared);
            alone(3);
        } else {
            std::shared_lock<std::shared_mutex> lock(shared);
            if (inside[3] != 0) errors++;
            sched_yield();
        }
        // A queue of four places: some threads put in what the others take.
        std::unique_lock<std::mutex> lock(queue_lock);
        if (number % 2 == 0) {
            emptied.wait(lock, [] { return queue < 4; });
            queue++;
            filled.notify_one();
        } else {
            filled.wait_for(lock, std::chrono::seconds(60), [] { return queue > 0; });
            if (queue-- <= 0) errors++;
            emptied.notify_all();
        }
    }
    std::unique_lock<std::shared_mutex> lock(shared);
    round_of_any++;
    any.notify_all();
    any.wait(lock, [] { return round_of_any % 6 == 0; });
    return errors;
}
