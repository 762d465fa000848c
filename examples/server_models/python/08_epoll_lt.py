"""Shows the list in the kernel, level-triggered: it says what *is*.

`epoll_ctl` changes the list, `epoll_wait` returns those of it that are ready: the price of a wait grows with the
active clients, and not with all. As long as there is something to read, each wait says so, and one read per event is
enough. Each change of what a client is watched for is a call. The next rung watches for everything once.

The document describes this mode, and has no program for it.

Rust: examples/server_models/epoll_lt.rs
"""

import select

import ladder


def wish(client):
    """Returns what a client is watched for."""
    return select.EPOLLIN * client.wants_read() | select.EPOLLOUT * client.wants_write()


if __name__ == "__main__":
    listener, service = ladder.begin("epoll, level-triggered.")
    listener.socket.setblocking(False)
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    clients, wishes = {}, {}
    while True:
        for fd, _ in epoll.poll():
            if fd == listener.fileno():
                if accepted := listener.accept():
                    client = ladder.Client(*accepted, service)
                    clients[client.fileno()], wishes[client.fileno()] = client, wish(client)
                    epoll.register(client, wish(client))
            elif ladder.attempt(clients[fd], clients[fd].turn) is None:
                # The kernel takes a closed socket out of the list by itself.
                del clients[fd], wishes[fd]
            elif wish(clients[fd]) != wishes[fd]:
                wishes[fd] = wish(clients[fd])
                epoll.modify(fd, wishes[fd])
