// Boost.Fiber with its default scheduler on one OS thread. Ping-pong is two unbuffered channels. Spawn and join take
// their stacks from a pool that is kept, the other rows from the default allocator. It has no reactor, so no echo.
#include "peer.h"

#include <boost/fiber/all.hpp>
#include <exception>
#include <memory>
#include <vector>

namespace fibers = boost::fibers;

static uint64_t yields(uint64_t threads, uint64_t rounds) {
    struct gate gate = {};
    gate.rounds = rounds;
    std::vector<fibers::fiber> all;
    all.reserve(threads);
    for (uint64_t i = 0; i < threads; i++) {
        all.emplace_back(fibers::launch::post, [&gate] { GATE_PASS(&gate, boost::this_fiber::yield()); });
    }
    while (!gate_opens(&gate, threads)) boost::this_fiber::yield();
    for (fibers::fiber &fiber : all) fiber.join();
    return gate.end - gate.start;
}

static uint64_t ping_pong(uint64_t n) {
    fibers::unbuffered_channel<uint64_t> to_pong, to_ping;
    uint64_t took = 0;
    fibers::fiber pong(fibers::launch::post, [&] {
        uint64_t value = 0;
        while (to_pong.pop(value) == fibers::channel_op_status::success) to_ping.push(value + 1);
    });
    fibers::fiber ping(fibers::launch::post, [&] {
        uint64_t value = 0, start = now_ns();
        for (uint64_t i = 0; i < n; i++) {
            to_pong.push(value);
            to_ping.pop(value);
        }
        took = now_ns() - start;
        if (value != n) exit(1);
        to_pong.close();
    });
    ping.join();
    pong.join();
    return took;
}

static uint64_t spawn_join(uint64_t batches) {
    static fibers::pooled_fixedsize_stack stacks;
    static uint64_t sum;
    std::vector<fibers::fiber> all;
    all.reserve(BATCH);
    uint64_t start = now_ns();
    for (; batches > 0; batches--) {
        for (uint64_t i = 0; i < BATCH; i++) {
            all.emplace_back(fibers::launch::post, std::allocator_arg, stacks, [i] { sum += i; });
        }
        for (fibers::fiber &fiber : all) fiber.join();
        all.clear();
    }
    return now_ns() - start;
}

static void memory(struct meter *meter) {
    fibers::mutex *mutex = new fibers::mutex;
    fibers::condition_variable *never = new fibers::condition_variable;
    for (uint64_t chunk; (chunk = meter_grant(meter)) > 0;) {
        for (uint64_t i = 0; i < chunk; i++) {
            try {
                fibers::fiber(fibers::launch::post, [=] {
                    std::unique_lock<fibers::mutex> lock(*mutex);
                    never->wait(lock);
                }).detach();
            } catch (const std::exception &error) {
                meter_fail(meter, chunk - i, "no memory for one more stack");
                break;
            }
        }
        boost::this_fiber::yield();
    }
}

int main(int argc, char **argv) {
    peer peer = {nullptr, yields, ping_pong, ping_pong, spawn_join, memory, nullptr};
    return peer_main(&peer, argc, argv);
}
