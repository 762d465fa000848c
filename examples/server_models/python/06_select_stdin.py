"""Shows that a descriptor need not be a socket: the terminal is one more in the same list.

A line on standard input stops the server. No rung before could do that: a thread that waits in `recv` does not see
the keyboard. The limits of select are the same. The next rung has no limit.

The document's program: a client that was answered once stays in the list of writers, and gets `thank you!` without
end; a closed socket stays there too, and the next select fails; the log names the client that came last; at the end
of input the server turns at full speed; `readline` waits for the end of a line while all clients wait.

Rust: examples/server_models/select_stdin.rs
"""

import os
import select

import ladder

STDIN = 0


def read_stdin():
    """Reads once. Returns the bytes, and none at the end."""
    try:
        # Mended: not `readline`, which keeps a second line in a buffer that select does not know of.
        return os.read(STDIN, 256)
    except OSError:
        return b""


if __name__ == "__main__":
    listener, service = ladder.begin("select; a line on standard input stops it.")
    listener.socket.setblocking(False)
    clients, inputs, stopped = set(), [STDIN], False
    while not stopped:
        readers = [listener, *inputs, *(client for client in clients if client.wants_read())]
        writers = [client for client in clients if client.wants_write()]
        readable, writable, _ = select.select(readers, writers, [])
        for client in {*readable, *writable} & clients:
            if ladder.attempt(client, client.turn) is None:
                clients.discard(client)
        if listener in readable and (accepted := listener.accept()):
            ladder.admit(accepted, service, clients)
        if STDIN in readable:
            line = read_stdin()
            stopped = b"\n" in line
            # Mended: at its end, input is readable for ever; it is asked about no more.
            inputs = inputs if line else []
    service.log("stopped")
