"""Shows a list of descriptors in place of a set of bits: no limit, and the same price.

Python's object keeps the list; the kernel is passed an array of it at each call, and walks through it, whichever
client is active. The next rung leaves the list with the kernel.

No document has this program; one describes it.

Rust: examples/server_models/poll.rs
"""

import select

import ladder


def wish(client):
    """Returns what a client is watched for."""
    return select.POLLIN * client.wants_read() | select.POLLOUT * client.wants_write()


if __name__ == "__main__":
    listener, service = ladder.begin("poll, any number of descriptors.")
    listener.socket.setblocking(False)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    clients = {}
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                if accepted := listener.accept():
                    client = ladder.Client(*accepted, service)
                    clients[client.fileno()] = client
                    poll.register(client, wish(client))
            elif ladder.attempt(clients[fd], clients[fd].turn) is None:
                # Before the number is given to the next client: Python's list knows descriptors by number only.
                poll.unregister(fd)
                del clients[fd]
            else:
                poll.modify(fd, wish(clients[fd]))
