"""Shows what the mistakes in the documents' programs do: each in a few lines, as the documents make it, and counted.

    python3 mistakes.py

Each function is one mistake, and returns what came of it; no client and no second terminal is needed. docs/ladder.md
has the output, and a test compares.
"""

import errno
import os
import select
import socket
import time

MISTAKES = []


def mistake(what):
    """Puts a function into the list of those that are shown."""

    def add(function):
        MISTAKES.append((what, function))
        return function

    return add


def listening():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(5)
    return listener


@mistake("a client has closed, and stays in the list of readers")
def closed_reader():
    server, client = socket.socketpair()
    client.close()
    returns = sum(bool(select.select([server], [], [], 1)[0]) for _ in range(1000))
    return f"{returns} of 1000 selects return at once, with nothing to read"


@mistake("a client was answered, and stays in the list of writers")
def idle_writer():
    server, client = socket.socketpair()
    returns = sum(bool(select.select([], [server], [], 1)[1]) for _ in range(1000))
    return f"{returns} of 1000 selects return at once, with nothing to send"


@mistake("a socket is closed, and stays in the list")
def closed_descriptor():
    server, client = socket.socketpair()
    server.close()
    try:
        select.select([server], [], [])
    except ValueError as error:
        return f"the next select: ValueError: {error}"


@mistake("`send` of 8 MB, and no look at how much it took")
def short_send():
    server, client = socket.socketpair()
    server.setblocking(False)
    message = bytes(8 << 20)
    return "the rest is lost" if server.send(message) < len(message) else "all was taken"


@mistake("`sendall` on a non-blocking socket")
def sendall_without_blocking():
    server, client = socket.socketpair()
    server.setblocking(False)
    try:
        server.sendall(bytes(8 << 20))
    except BlockingIOError:
        return "BlockingIOError, and how much was sent is not known"


@mistake("a piece of input is decoded as text")
def half_a_character():
    server, client = socket.socketpair()
    client.sendall("\u4f60".encode()[:2])
    try:
        server.recv(1024).decode()
    except UnicodeDecodeError:
        return "half a character: UnicodeDecodeError ends the server"


@mistake("each message gets a new queue")
def new_queue():
    queues = {}
    for message in ["one", "two"]:
        queues["client"] = []
        queues["client"].append(message)
    return f"two messages, then sent: {' '.join(queues['client'])}"


@mistake("clients are removed from the list that is walked through")
def removed_while_walking():
    clients, visited = ["A", "B", "C"], []
    for client in clients:
        visited.append(client)
        if client == "A":
            clients.remove(client)
    return f"A leaves; visited: {' '.join(visited)}"


@mistake("the log names `addr`, a variable of the loop")
def wrong_address():
    for addr in ["the first client", "the second client"]:
        pass
    return f"the first client leaves, and the log says: {addr} left"


@mistake("urgent data are taken for a broken connection")
def urgent_data():
    listener = listening()
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    client.send(b"!", socket.MSG_OOB)
    _, _, exceptional = select.select([], [], [server], 5)
    client.send(b"and on")
    return f"exceptional: {len(exceptional)}; and then it says: {server.recv(1024).decode()}"


@mistake("edge-triggered: one accept per edge")
def one_accept():
    listener = listening()
    epoll = select.epoll()
    clients = [socket.create_connection(listener.getsockname()) for _ in range(2)]
    epoll.register(listener, select.EPOLLIN | select.EPOLLET)
    told = len(epoll.poll(1))
    listener.accept()
    return f"2 clients, {told} event; after one accept the next wait has {len(epoll.poll(0.1))} events"


@mistake("edge-triggered: 1024 bytes per edge")
def one_read():
    server, client = socket.socketpair()
    epoll = select.epoll()
    epoll.register(server, select.EPOLLIN | select.EPOLLET)
    client.sendall(bytes(1500))
    told = len(epoll.poll(1))
    server.recv(1024)
    left = len(server.recv(1024, socket.MSG_PEEK))
    return f"1500 bytes, {told} event; {left} are left, and the next wait has {len(epoll.poll(0.1))} events"


@mistake("events == EPOLLIN")
def compared_with_in():
    server, client = socket.socketpair()
    epoll = select.epoll()
    epoll.register(server, select.EPOLLIN | select.EPOLLET)
    client.sendall(b"bye")
    client.close()
    [(_, events)] = epoll.poll(1)
    return f"bytes and the end come as {events} = EPOLLIN | EPOLLHUP; equal: {events == select.EPOLLIN}"


@mistake("SO_REUSEADDR after `bind`")
def reuse_too_late():
    listener = listening()
    client = socket.create_connection(listener.getsockname())
    server, _ = listener.accept()
    # The server is the first to close, so its side of the connection keeps the port for a minute.
    server.close()
    client.recv(1)
    client.close()
    addr = listener.getsockname()
    listener.close()
    again = socket.socket()
    try:
        again.bind(addr)
    except OSError as error:
        return f"started again: {errno.errorcode[error.errno]}"
    finally:
        again.close()


@mistake("children are not waited for")
def zombies():
    ended, others = os.pipe()
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.close(others)
    os.read(ended, 1)  # the end of the pipe: the child has ended
    # The last thing that an ending process does comes a moment after it has closed its descriptors.
    while (state := open(f"/proc/{child}/stat").read().rsplit(") ")[1][0]) != "Z":
        time.sleep(0.001)
    os.waitpid(child, 0)
    return f"the child has ended, and its state is {state}, a zombie"


if __name__ == "__main__":
    for what, show in MISTAKES:
        print(f"{what}:\n    {show()}")
