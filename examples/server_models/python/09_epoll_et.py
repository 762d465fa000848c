"""Shows the list in the kernel, edge-triggered: it says what has *changed*, once.

One registration for both directions, and no other call but the IO itself. In return each event must be handled until
"not now", or remembered: what is left is not told again. It need not be handled at once, as the documents say. The
next rung lets a stack remember.

The documents' programs (two): accept once per edge, so of two clients that come together one stays in line; read 1024
bytes per edge, and the rest stays; `events == EPOLLIN` misses every event that has another bit, too; the listener
blocks; one never answers, and its own client waits for ever.

Rust: examples/server_models/epoll_et.rs
"""

import select

import ladder

BOTH_WAYS = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET

if __name__ == "__main__":
    listener, service = ladder.begin("epoll, edge-triggered.")
    listener.socket.setblocking(False)
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN | select.EPOLLET)
    clients, unfinished = {}, set()
    while True:
        # Mended: events are not compared with EPOLLIN. Whatever the change was, a turn finds out.
        ready = {fd for fd, _ in epoll.poll(0 if unfinished else -1)}
        accepts = listener.fileno() in ready
        # These have a turn: those with an edge, and those that were not done, of which no edge will tell.
        turns, unfinished = (ready | unfinished) & clients.keys(), set()
        for fd in turns:
            # Mended: `pump` reads until there is no more, and not once.
            more = ladder.attempt(clients[fd], clients[fd].pump)
            if more is None:
                del clients[fd]
            elif more:
                unfinished.add(fd)
        # Mended: until none is in line, and not once. Last, so that no number in `turns` is a new client's.
        while accepts and (accepted := listener.accept()):
            client = ladder.Client(*accepted, service)
            clients[client.fileno()] = client
            # Bytes that the client has sent already are an edge, too: the first wait reports them.
            epoll.register(client, BOTH_WAYS)
