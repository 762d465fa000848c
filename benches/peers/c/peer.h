/* What the C and C++ programs share: the rules of ../src/lib.rs, once more. See there for what is printed when.
 *
 * A program fills a `struct peer` with the rows it has (0 = it has none such) and hands it to `peer_main`. Each
 * function does as many units as it is told and returns the nanoseconds they took.
 */
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 1000, BUFFER = 16 * 1024, CHUNK = 10000 };

/* When to stop parking tasks, and why. */
struct meter {
    uint64_t wanted, parked, before, most;
    const char *limit; /* NULL unless there are fewer than wanted */
};

struct peer {
    uint64_t (*round_trips)(uint64_t n);
    uint64_t (*yields)(uint64_t threads, uint64_t rounds);
    uint64_t (*ping_pong)(uint64_t n);
    uint64_t (*channel)(uint64_t n);
    uint64_t (*spawn_join)(uint64_t batches);
    void (*memory)(struct meter *meter);
    void (*echo)(void);
};

static inline uint64_t now_ns(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

/* A field in kB of a file of /proc, in bytes. */
static inline uint64_t proc_field(const char *file, const char *name) {
    char line[256];
    unsigned long long kilobytes = 0;
    FILE *stream = fopen(file, "r");
    while (stream && fgets(line, sizeof line, stream)) {
        if (strncmp(line, name, strlen(name)) == 0) kilobytes = strtoull(line + strlen(name), NULL, 10);
    }
    if (stream) fclose(stream);
    return kilobytes * 1024;
}

/* Bytes of this process in memory, its page tables included. */
static inline uint64_t memory_now(void) {
    return proc_field("/proc/self/status", "VmRSS:") + proc_field("/proc/self/status", "VmPTE:");
}

/* How many tasks to park next; 0 if that is all. All that were asked for before are parked by now. */
static inline uint64_t meter_grant(struct meter *meter) {
    uint64_t now = memory_now();
    if (now > meter->before && now - meter->before > meter->most && !meter->limit) {
        meter->limit = "a third of the free memory is used up";
    }
    if (meter->limit) return 0;
    uint64_t left = meter->wanted - meter->parked, granted = left < (uint64_t)CHUNK ? left : (uint64_t)CHUNK;
    meter->parked += granted;
    return granted;
}

/* Parks no more, for this reason. Of the last chunk `missing` are not there. */
static inline void meter_fail(struct meter *meter, uint64_t missing, const char *why) {
    meter->parked -= missing;
    meter->limit = why;
}

/* ---- the gate of the yield rows -------------------------------------------------------------------------------- */

/* Where the threads begin together and end together, so that neither their first turn nor their end is measured. */
struct gate {
    uint64_t arrived, left, rounds, start, end;
    int open;
};

/* Opens it if so many threads have come. */
static inline int gate_opens(struct gate *gate, uint64_t threads) {
    if (gate->arrived < threads) return 0;
    gate->left = threads;
    gate->start = now_ns();
    gate->open = 1;
    return 1;
}

/* What each thread does. The fields are read again after each yield: another thread writes them meanwhile. */
#define GATE_PASS(GATE, YIELD)                       \
    do {                                             \
        volatile struct gate *pass_ = (GATE);        \
        uint64_t rounds_ = pass_->rounds;            \
        pass_->arrived = pass_->arrived + 1;         \
        while (!pass_->open) YIELD;                  \
        while (rounds_-- > 0) YIELD;                 \
        pass_->left = pass_->left - 1;               \
        if (pass_->left == 0) pass_->end = now_ns(); \
        while (pass_->left > 0) YIELD;               \
    } while (0)

/* ---- the command line ------------------------------------------------------------------------------------------ */

/* Runs with more units until they take as long as the budget; the last time counts, those before it warm up. */
static inline double peer_settle(const struct peer *peer, const char *row, uint64_t budget) {
    uint64_t threads = strncmp(row, "yield/", 6) == 0 ? strtoull(row + 6, NULL, 10) : 0;
    uint64_t per = threads ? threads : strcmp(row, "spawn-join") == 0 ? (uint64_t)BATCH : 1;
    uint64_t units = 2000 / per > 20 ? 2000 / per : 20;
    for (int warm = 0;; warm = 1) {
        uint64_t took = threads                         ? peer->yields(threads, units)
                        : per == (uint64_t)BATCH         ? peer->spawn_join(units)
                        : strcmp(row, "ping-pong") == 0  ? peer->ping_pong(units)
                        : strcmp(row, "channel") == 0    ? peer->channel(units)
                                                         : peer->round_trips(units);
        if (warm && took >= budget) return (double)took / (double)(units * per);
        double missing = 1.1 * (double)budget / (double)(took ? took : 1);
        if (missing > 16) missing = 16;
        if (missing > 1) units = (uint64_t)((double)units * (missing < 1.5 ? 1.5 : missing)) + 1;
    }
}

static inline int peer_main(const struct peer *peer, int argc, char **argv) {
    const char *row = argc > 1 ? argv[1] : "";
    uint64_t number = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
    int yields = peer->yields != NULL;
    if (strcmp(row, "rows") == 0) {
        if (peer->round_trips) puts("switch");
        if (yields) puts("yield/2\nyield/1000\nyield/100000");
        if (peer->ping_pong) puts("ping-pong");
        if (peer->channel) puts("channel");
        if (peer->spawn_join) puts("spawn-join");
        if (peer->memory) puts("memory");
        if (peer->echo) puts("echo");
    } else if (strcmp(row, "echo") == 0 && peer->echo) {
        peer->echo();
    } else if (strcmp(row, "memory") == 0 && peer->memory && number) {
        struct meter meter = {number, 0, memory_now(), proc_field("/proc/meminfo", "MemAvailable:") / 3, NULL};
        peer->memory(&meter);
        if (meter.parked == 0) {
            printf("memory - %s\n", meter.limit ? meter.limit : "nothing was parked");
        } else {
            double each = (double)(memory_now() - meter.before) / (double)meter.parked;
            printf("memory %.0f bytes/task %llu%s%s\n", each, (unsigned long long)meter.parked, meter.limit ? " " : "",
                   meter.limit ? meter.limit : "");
        }
        fflush(stdout);
        _exit(0); /* what is parked stays so */
    } else if (number && ((strcmp(row, "switch") == 0 && peer->round_trips) || (strncmp(row, "yield/", 6) == 0 && yields) ||
                          (strcmp(row, "ping-pong") == 0 && peer->ping_pong) ||
                          (strcmp(row, "channel") == 0 && peer->channel) ||
                          (strcmp(row, "spawn-join") == 0 && peer->spawn_join))) {
        const char *unit = row[0] == 'y' ? "ns/yield" : strcmp(row, "spawn-join") == 0 ? "ns/thread" : "ns/round-trip";
        printf("%s %.2f %s\n", row, peer_settle(peer, row, number * 1000000u), unit);
    } else {
        fprintf(stderr, "usage: PROGRAM rows | ROW MILLISECONDS | memory TASKS | echo\n");
        return 2;
    }
    return 0;
}

/* ---- sockets --------------------------------------------------------------------------------------------------- */

/* A listener on a free port, which it prints. Ends the program if there is none. */
static inline int listen_and_say(void) {
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in addr;
    socklen_t length = sizeof addr;
    memset(&addr, 0, sizeof addr);
    addr.sin_family = AF_INET;
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        bind(listener, (struct sockaddr *)&addr, sizeof addr) < 0 || listen(listener, SOMAXCONN) < 0 ||
        getsockname(listener, (struct sockaddr *)&addr, &length) < 0) {
        perror("listen");
        exit(1);
    }
    printf("listening on 127.0.0.1:%d\n", ntohs(addr.sin_port));
    fflush(stdout);
    return listener;
}
