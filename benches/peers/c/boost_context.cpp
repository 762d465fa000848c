// Boost.Context: explicit switches between `boost::context::fiber`s. It has no scheduler, so it has the row `switch` and
// the memory.
#include "peer.h"

#include <boost/context/fiber.hpp>
#include <exception>
#include <utility>
#include <vector>

namespace ctx = boost::context;

static uint64_t round_trips(uint64_t n) {
    uint64_t value = 7;
    ctx::fiber partner([&value](ctx::fiber &&back) {
        for (;;) {
            value++;
            back = std::move(back).resume();
        }
        return std::move(back);
    });
    uint64_t start = now_ns();
    for (uint64_t i = 0; i < n; i++) partner = std::move(partner).resume();
    uint64_t took = now_ns() - start;
    if (value != 7 + n) exit(1);
    return took; // the end of `partner` unwinds it
}

static void memory(struct meter *meter) {
    std::vector<ctx::fiber> *parked = new std::vector<ctx::fiber>; // never freed: each would be unwound
    for (uint64_t chunk; (chunk = meter_grant(meter)) > 0;) {
        for (uint64_t i = 0; i < chunk; i++) {
            try {
                ctx::fiber fiber([](ctx::fiber &&back) {
                    back = std::move(back).resume();
                    return std::move(back);
                });
                parked->push_back(std::move(fiber).resume());
            } catch (const std::exception &error) {
                meter_fail(meter, chunk - i, "no memory for one more stack");
                return;
            }
        }
    }
}

int main(int argc, char **argv) {
    peer peer = {round_trips, nullptr, nullptr, nullptr, nullptr, memory, nullptr};
    return peer_main(&peer, argc, argv);
}
