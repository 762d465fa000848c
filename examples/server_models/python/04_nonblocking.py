"""Shows one thread that asks all clients, all the time.

A non-blocking socket never waits: `recv` gives bytes, or says "not now". One thread serves all, without locks and
without switches; but the conversation is left in the middle, so its state moves out of local variables, into
`Client`. An idle server takes a whole processor. The next rung asks the kernel once about all clients, and sleeps
until there is an answer.

The document's program: removes (this socket, the address of another) from its list, where it is not, and ends;
removes from the list it walks through, and so skips a client; takes every error for "not now".

Rust: examples/server_models/nonblocking.rs
"""

import ladder

if __name__ == "__main__":
    listener, service = ladder.begin("One thread that asks all clients, all the time.")
    listener.socket.setblocking(False)
    clients = []
    while True:
        if accepted := listener.accept():
            clients.append(ladder.Client(*accepted, service))
        # Mended: a new list of those that stay, in place of `remove` during the walk.
        clients = [client for client in clients if ladder.attempt(client, client.turn) is not None]
