/* The yardstick of benches/echo.rs: a plain echo server, one thread around one epoll loop.
 *
 *     cc -O2 -o epoll_echo epoll_echo.c && ./epoll_echo [-e] [-t] [PORT]
 *
 * Level-triggered as most people write it; -e registers each connection once, edge-triggered, and trusts a short
 * read to mean "drained". Either way a request costs one recv and one send, plus its share of one epoll_wait.
 * With -t, a request also touches the cache lines and the page that the green thread of a connection would touch, and
 * does nothing with them: what is left between this and a server of green threads is not memory.
 * Only the unusual path allocates: what a slow reader did not take is kept until the socket is writable again,
 * and nothing more is read from that connection before. PORT 0 or none: the kernel chooses.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 1024, BUFFER = 16 * 1024 };

/* What a connection still owes its peer. `bytes` is NULL except while the peer reads too slowly. */
struct debt {
    char *bytes;
    size_t sent, len;
};

/* -t: as many bytes of address space for each connection as a stack has, of which the lines near the top are touched.
 * How many there are of which kind: docs/measurements.md, "Limits". */
enum { STRIDE = 256 * 1024, BLOCK = 384, COLOURS = 16, COLOUR = 128, LINE = 64 };

/* The lines in that page, counted from the start of the control block: three of the block, seven of frames. */
static const int lines[] = {3, 2, 0, -2, -14, -17, -18, -19, -20, -21};

static int epoll, edge;
static char *stacks;      /* -t: indexed by fd */
static char *registered;  /* -t: two lines for each fd, which the event leads to */
static struct debt *debts; /* indexed by fd */
static char buffer[BUFFER];

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void watch(int op, int fd, unsigned events) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    if (epoll_ctl(epoll, op, fd, &event) < 0) die("epoll_ctl");
}

/* Writes to the lines that an echo touches in its green thread's page, and in what the event leads to. */
static void touch(int fd) {
    char *block = stacks + (size_t)(fd + 1) * STRIDE - (size_t)(fd % COLOURS) * COLOUR - BLOCK;
    char *entry = registered + (size_t)fd * 128;
    for (int line = 0; line < 2; line++) *(volatile char *)(entry + LINE * line) += 1;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) *(volatile char *)(block + LINE * lines[i]) += 1;
}

static void hang_up(int fd) {
    free(debts[fd].bytes);
    debts[fd] = (struct debt){0};
    close(fd); /* also leaves the epoll set: the fd is not shared */
}

static void accept_all(int listener) {
    int on = 1;
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            /* Else a message that is sent back in pieces waits for acknowledgements. */
            if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0) die("setsockopt");
            watch(EPOLL_CTL_ADD, fd, edge ? EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET : EPOLLIN);
        } else if (errno == EAGAIN) {
            return;
        } else if (errno != EINTR && errno != ECONNABORTED) {
            die("accept4");
        }
    }
}

/* Sends `len` bytes; 1 = all gone, 0 = the rest waits for EPOLLOUT, -1 = the connection is lost. */
static int send_or_keep(int fd, const char *bytes, size_t len) {
    size_t sent = 0;
    while (sent < len) {
        ssize_t n = send(fd, bytes + sent, len - sent, MSG_NOSIGNAL);
        if (n >= 0) {
            sent += (size_t)n;
        } else if (errno == EAGAIN) {
            struct debt *debt = &debts[fd];
            debt->len = len - sent;
            debt->sent = 0;
            debt->bytes = malloc(debt->len);
            if (!debt->bytes) die("malloc");
            memcpy(debt->bytes, bytes + sent, debt->len);
            if (!edge) watch(EPOLL_CTL_MOD, fd, EPOLLOUT);
            return 0;
        } else if (errno != EINTR) {
            return -1;
        }
    }
    return 1;
}

/* Pays an older debt first; 1 = nothing owed any more. */
static int pay(int fd) {
    struct debt *debt = &debts[fd];
    while (debt->sent < debt->len) {
        ssize_t n = send(fd, debt->bytes + debt->sent, debt->len - debt->sent, MSG_NOSIGNAL);
        if (n >= 0) debt->sent += (size_t)n;
        else if (errno == EAGAIN) return 0;
        else if (errno != EINTR) return -1;
    }
    free(debt->bytes);
    *debt = (struct debt){0};
    if (!edge) watch(EPOLL_CTL_MOD, fd, EPOLLIN);
    return 1;
}

static void serve(int fd, unsigned events) {
    if (debts[fd].bytes) {
        int paid = pay(fd);
        if (paid < 0) hang_up(fd);
        if (paid <= 0) return;
    } else if (edge && !(events & ~(unsigned)EPOLLOUT)) {
        return; /* "writable", and nothing to write: the first event of every connection */
    }
    if (stacks) touch(fd);
    for (;;) {
        ssize_t n = recv(fd, buffer, BUFFER, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) {
            hang_up(fd);
            return;
        }
        int sent = send_or_keep(fd, buffer, (size_t)n);
        if (sent < 0) hang_up(fd);
        if (sent <= 0 || !edge) return; /* level-triggered: epoll says so if there is more */
        if (n < BUFFER && !(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))) return;
    }
}

int main(int argc, char **argv) {
    int opt, on = 1, touches = 0;
    while ((opt = getopt(argc, argv, "et")) != -1) {
        if (opt == 'e') edge = 1;
        else if (opt == 't') touches = 1;
        else return 2;
    }
    int port = optind < argc ? atoi(argv[optind]) : 0;

    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) die("getrlimit");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0) die("setrlimit");
    debts = calloc(limit.rlim_max, sizeof *debts);
    if (!debts) die("calloc");
    if (touches) {
        size_t len = limit.rlim_max * STRIDE;
        stacks = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (stacks == MAP_FAILED) die("mmap");
        madvise(stacks, len, MADV_NOHUGEPAGE);
        registered = calloc(limit.rlim_max, 128);
        if (!registered) die("calloc");
    }

    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (listener < 0) die("socket");
    if (setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0) die("setsockopt");
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof addr;
    if (bind(listener, (struct sockaddr *)&addr, sizeof addr) < 0) die("bind");
    if (listen(listener, SOMAXCONN) < 0) die("listen");
    if (getsockname(listener, (struct sockaddr *)&addr, &len) < 0) die("getsockname");

    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) die("epoll_create1");
    watch(EPOLL_CTL_ADD, listener, EPOLLIN);
    printf("listening on 127.0.0.1:%d\n", ntohs(addr.sin_port));
    fflush(stdout);

    static struct epoll_event events[EVENTS];
    for (;;) {
        int n = epoll_wait(epoll, events, EVENTS, -1);
        if (n < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == listener) accept_all(listener);
            else serve(events[i].data.fd, events[i].events);
        }
    }
}
