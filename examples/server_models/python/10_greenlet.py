"""Shows the local variables coming back: a greenlet for each client, switched by hand.

    loop: epoll --switch(events)--> converse of that client
          epoll <--switch(what it waits for)-- recv or send said "not now"

`converse` is a straight line again, as on the first rung, and where that waits, this one switches to the loop.
`Client` is gone. A switch that is forgotten stops all clients. The next rung has the switch in the library.

No document has a server of this kind: their greenlets print A and B (`greenlet_ping_pong.py`).
Needs `greenlet`: pip install greenlet

Rust: examples/server_models/greenlet.rs
"""

import select

from greenlet import getcurrent, greenlet

import ladder


def wait(events):
    """Switches to the loop until one of the events has happened."""
    getcurrent().parent.switch(events)


def send_all(conn, piece):
    """Sends all of it. Reads nothing meanwhile, so there is no queue that could grow."""
    rest = memoryview(piece)
    while rest:
        try:
            rest = rest[conn.send(rest) :]
        except BlockingIOError:
            wait(select.EPOLLOUT)


def converse(conn, peer, service):
    """Serves one client from its first byte to its last: the lines of `ladder.converse`, with a switch at each wait."""
    received, error = 0, None
    with conn:
        try:
            while True:
                # Also when there may be more to read: others have their turn.
                wait(select.EPOLLIN)
                try:
                    piece = conn.recv(ladder.BUFFER)
                except BlockingIOError:
                    continue
                if not piece:
                    break
                received += len(piece)
                send_all(conn, service.answer(piece))
        except OSError as problem:
            error = problem
    service.left(peer, received, error)


if __name__ == "__main__":
    listener, service = ladder.begin("A greenlet for each client, switched by hand.")
    listener.socket.setblocking(False)
    epoll = select.epoll()
    epoll.register(listener, select.EPOLLIN)
    conversations, wishes = {}, {}
    while True:
        for fd, events in epoll.poll():
            if fd == listener.fileno():
                if accepted := listener.accept():
                    accepted[0].setblocking(False)
                    number = accepted[0].fileno()
                    conversations[number] = greenlet(converse)
                    wishes[number] = conversations[number].switch(*accepted, service)
                    epoll.register(number, wishes[number])
                continue
            wanted = conversations[fd].switch(events)
            if conversations[fd].dead:
                del conversations[fd], wishes[fd]
            elif wanted != wishes[fd]:
                wishes[fd] = wanted
                epoll.modify(fd, wanted)
