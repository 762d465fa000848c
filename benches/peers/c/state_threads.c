/* State Threads. Ping-pong is two condition variables. A yield is st_usleep(0): version 1.9 has none of its own, so each
 * one passes the timer heap, and the idle thread asks the kernel once a turn.
 */
#include "peer.h"

#include <st.h>
#include <sys/resource.h>

static void *turns(void *argument) {
    struct gate *gate = argument;
    GATE_PASS(gate, st_usleep(0));
    return NULL;
}

static uint64_t yields(uint64_t threads, uint64_t rounds) {
    struct gate gate = {.rounds = rounds};
    st_thread_t *all = malloc(threads * sizeof *all);
    for (uint64_t i = 0; i < threads; i++) {
        all[i] = st_thread_create(turns, &gate, 1, 0);
        if (!all[i]) {
            perror("st_thread_create");
            exit(1);
        }
    }
    while (!gate_opens(&gate, threads)) st_usleep(0);
    for (uint64_t i = 0; i < threads; i++) st_thread_join(all[i], NULL);
    free(all);
    return gate.end - gate.start;
}

static st_cond_t to_pong, to_ping;

static void *pong(void *argument) {
    for (uint64_t n = *(uint64_t *)argument; n > 0; n--) {
        st_cond_wait(to_pong);
        st_cond_signal(to_ping);
    }
    return NULL;
}

static uint64_t ping_pong(uint64_t n) {
    to_pong = st_cond_new();
    to_ping = st_cond_new();
    st_thread_t partner = st_thread_create(pong, &n, 1, 0);
    st_usleep(0); /* so that it waits */
    uint64_t start = now_ns();
    for (uint64_t i = n; i > 0; i--) {
        st_cond_signal(to_pong);
        st_cond_wait(to_ping);
    }
    uint64_t took = now_ns() - start;
    st_thread_join(partner, NULL);
    st_cond_destroy(to_pong);
    st_cond_destroy(to_ping);
    return took;
}

static void *nothing(void *argument) {
    return argument;
}

static uint64_t spawn_join(uint64_t batches) {
    static st_thread_t all[BATCH];
    uint64_t start = now_ns();
    for (; batches > 0; batches--) {
        for (uintptr_t i = 0; i < BATCH; i++) all[i] = st_thread_create(nothing, (void *)i, 1, 0);
        for (uintptr_t i = 0; i < BATCH; i++) {
            void *result;
            st_thread_join(all[i], &result);
            if (result != (void *)i) exit(1);
        }
    }
    return now_ns() - start;
}

static void *park(void *argument) {
    st_cond_wait(argument);
    return NULL;
}

static void memory(struct meter *meter) {
    st_cond_t never = st_cond_new();
    for (uint64_t chunk; (chunk = meter_grant(meter)) > 0;) {
        for (uint64_t i = 0; i < chunk; i++) {
            if (!st_thread_create(park, never, 0, 0)) {
                meter_fail(meter, chunk - i, "no stack for more, see vm.max_map_count");
                return;
            }
        }
        st_usleep(0);
    }
}

static void *serve(void *argument) {
    st_netfd_t client = argument;
    char *buffer = malloc(BUFFER);
    ssize_t length;
    while ((length = st_read(client, buffer, BUFFER, ST_UTIME_NO_TIMEOUT)) > 0) {
        if (st_write(client, buffer, (size_t)length, ST_UTIME_NO_TIMEOUT) != length) break;
    }
    free(buffer);
    st_netfd_close(client);
    return NULL;
}

static void echo(void) {
    st_netfd_t listener = st_netfd_open_socket(listen_and_say());
    for (;;) {
        int on = 1;
        st_netfd_t client = st_accept(listener, NULL, NULL, ST_UTIME_NO_TIMEOUT);
        if (!client) continue;
        setsockopt(st_netfd_fileno(client), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        st_thread_create(serve, client, 0, 0);
    }
}

int main(int argc, char **argv) {
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    st_set_eventsys(ST_EVENTSYS_ALT); /* epoll, if the library was built with it; else select, up to 1024 descriptors */
    if (st_init() < 0) {
        perror("st_init");
        return 1;
    }
    struct peer peer = {NULL, yields, ping_pong, NULL, spawn_join, memory, echo};
    return peer_main(&peer, argc, argv);
}
