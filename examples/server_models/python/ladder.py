"""What the rungs share: the command line, the listener, the log, a conversation, and the client of an event loop.

    converse     the conversation as one reads it; state: its local variables       rungs 1, 2, 3, 11
    Client       the same, left in the middle and taken up again; state: its fields  rungs 4 to 9

Each rung is one file beside this one, and says what it shows and what was wrong in the documents' program. `Mended`
marks the lines that are right here and were wrong there. Python's standard library is enough for rungs 1 to 9.
"""

import argparse
import errno
import os
import signal
import socket
import time

BUFFER = 16 * 1024
# A client with so many bytes of answers in its queue is not read from.
QUEUE_LIMIT = 64 * 1024
# The descriptors for which `select` has a bit.
FD_SETSIZE = 1024


class Service:
    """What the server answers, and its log."""

    def __init__(self, thanks, quiet):
        self.thanks = thanks
        self.quiet = quiet

    def answer(self, piece):
        """Returns the answer to a piece of input.

        Mended: the documents decode each piece as text. A character may lie across two pieces, and a client may send
        what is no text; either ends their server. Bytes stay bytes here.
        """
        return b"thank you!" if self.thanks else piece

    def log(self, line):
        """Writes a line in one piece: threads and processes share the output."""
        if not self.quiet:
            os.write(1, f"{line}\n".encode())

    def came(self, peer):
        self.log(f"{peer} connected")

    def left(self, peer, received, error=None):
        self.log(f"{peer} left after {received} bytes: {error.strerror if error else 'closed by the client'}")

    def refused(self, peer, why):
        self.log(f"{peer} refused: {why}")


class Listener:
    """The socket that accepts. One descriptor is kept spare, to turn a client away when there is none for it."""

    def __init__(self, family, addr, service):
        self.service = service
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        # Mended: the fourth document sets this after `bind`, where it is too late: a server that is started again
        # within a minute finds its port taken.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(addr)
        self.socket.listen(1024)
        self.spare = os.open(__file__, os.O_RDONLY)

    def fileno(self):
        return self.socket.fileno()

    def accept(self):
        """Returns a connection and its name, or `None` if there is none now. Turns away those for which there is no
        descriptor: a client that is left in line would be reported again at once."""
        while True:
            try:
                conn, addr = self.socket.accept()
            except ConnectionAbortedError:
                continue
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                if not self.turn_away(error):
                    return None
                continue
            self.service.came(name(addr))
            return conn, name(addr)

    def turn_away(self, why):
        """Accepts with the spare descriptor, and closes. Returns whether there was a client."""
        os.close(self.spare)
        try:
            conn, addr = self.socket.accept()
            conn.close()
            # gevent closes sockets in the next turn of its loop, and the descriptor is needed for the spare one.
            time.sleep(0)
            self.service.refused(name(addr), why.strerror)
            return True
        except BlockingIOError:
            return False
        finally:
            self.spare = os.open(__file__, os.O_RDONLY)


def name(addr):
    """Returns an address as it is written: HOST:PORT, or [HOST]:PORT."""
    host, port = addr[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def begin(about):
    """Reads the command line and listens. Returns the listener and the service."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--addr", default="127.0.0.1:7007", help="HOST:PORT; port 0 takes a free one")
    parser.add_argument("--reply", choices=["echo", "thanks"], default="echo")
    parser.add_argument("--quiet", action="store_true", help="do not log connections and departures")
    options = parser.parse_args()
    # Without Python's handler Ctrl-C ends the program as it ends others, and prints no traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    service = Service(options.reply == "thanks", options.quiet)
    host, _, port = options.addr.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        parser.error(f"{options.addr} is not HOST:PORT")
    try:
        family, _, _, _, addr = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        listener = Listener(family, addr, service)
    except OSError as error:
        parser.error(f"cannot listen on {options.addr}: {error.strerror}")
    os.write(1, f"listening on {name(listener.socket.getsockname())}\n".encode())
    return listener, service


def converse(conn, peer, service):
    """Serves one client from its first byte to its last. How far it is, the local variables say."""
    received, error = 0, None
    # Mended: the documents catch no error here, so a client that is reset ends the server for all; and those that close
    # in a `finally` do not close what an error left in between. `with` closes in any case.
    with conn:
        try:
            while piece := conn.recv(BUFFER):
                received += len(piece)
                # Mended: `send` may take less than all, and the documents do not look at how much it took.
                conn.sendall(service.answer(piece))
        except OSError as problem:
            error = problem
    service.left(peer, received, error)


class Client:
    """A client of an event loop: what `converse` has in local variables must be kept from one turn to the next.

        recv --> answer --> queue --> send      ended: no more recv; over when the queue is empty, too
    """

    def __init__(self, conn, peer, service):
        # Mended: in two of the documents accepted sockets block, and one slow client stops the loop.
        conn.setblocking(False)
        self.conn = conn
        # Mended: the documents log `addr`, a variable of the loop: the address of the client that came last.
        self.peer = peer
        self.service = service
        # Mended: one document makes a new queue for each message and so loses what was in the old one.
        self.queue = bytearray()
        self.ended = False
        self.received = 0

    def fileno(self):
        return self.conn.fileno()

    def wants_read(self):
        return not self.ended and len(self.queue) < QUEUE_LIMIT

    def wants_write(self):
        return bool(self.queue)

    def turn(self):
        """Reads once, if that is wanted, and sends what can be sent. Returns whether the conversation is over."""
        if self.wants_read():
            self.receive()
        self.flush()
        return self.is_over()

    def pump(self):
        """Reads and sends until the socket gives and takes no more. Returns whether there may be more to do."""
        for _ in range(16):
            self.flush()
            if self.ended or not self.wants_read() or not self.receive():
                return False
        # A client that sends without pause must not keep the others waiting.
        return True

    def is_over(self):
        return self.ended and not self.queue

    def receive(self):
        """Reads once. Returns whether there was anything to read."""
        try:
            piece = self.conn.recv(BUFFER)
        except BlockingIOError:
            return False
        # Mended: no bytes are the end. The documents' select servers look for an error only: a client that left in good
        # order stays in their lists, always readable, and the server turns at full speed.
        if not piece:
            self.ended = True
        else:
            self.received += len(piece)
            self.queue += self.service.answer(piece)
        return True

    def flush(self):
        """Sends until the queue is empty or the socket takes no more."""
        try:
            while self.queue:
                # Mended: the documents lose what a `send` did not take, or call `sendall`, which on a non-blocking
                # socket fails in the middle.
                del self.queue[: self.conn.send(self.queue)]
        except BlockingIOError:
            pass

    def leave(self, error=None):
        self.conn.close()
        self.service.left(self.peer, self.received, error)


def admit(accepted, service, clients):
    """Adds a client to a set that `select` watches, if its descriptor has a bit there."""
    conn, peer = accepted
    if conn.fileno() < FD_SETSIZE:
        clients.add(Client(conn, peer, service))
    else:
        # Python's select would raise ValueError; in C, FD_SET writes past the end of the set.
        service.refused(peer, f"descriptor {conn.fileno()} is beyond FD_SETSIZE ({FD_SETSIZE})")
        conn.close()


def attempt(client, work):
    """Runs a turn of a client. Returns its result, or `None` if the client has left, by an error or in good order."""
    try:
        result = work()
    except OSError as error:
        # Mended: the documents' programs end here, or keep the client in one of their lists.
        client.leave(error)
        return None
    if client.is_over():
        client.leave()
        return None
    return result
