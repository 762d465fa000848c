"""Shows one question about all clients: `select` sleeps until one of them is ready.

    select(what may be read, what may be written) --> those that would not block now --> a turn for each

The kernel is told all descriptors anew at each call, and both sides walk through them, whichever is active. It has a
bit for each descriptor below 1024. The next rung adds the terminal; the one after that has no limit.

The documents' programs: three of four forget clients that close in good order, and turn at full speed from then on;
one does not parse (`print ('ehco > 'send_data)`); one overwrites answers that are not sent yet; one takes urgent data
for a broken connection; writers are removed from the list that is walked through; a reset ends the server.

Rust: examples/server_models/select.rs
"""

import select

import ladder

if __name__ == "__main__":
    listener, service = ladder.begin("select, descriptors below 1024.")
    listener.socket.setblocking(False)
    clients = set()
    while True:
        readers = [listener, *(client for client in clients if client.wants_read())]
        # Mended: a client that is in this list while it has nothing to send makes select return at once, for ever.
        writers = [client for client in clients if client.wants_write()]
        readable, writable, _ = select.select(readers, writers, [])
        # A client that is ready for both has one turn.
        for client in {*readable, *writable} & clients:
            if ladder.attempt(client, client.turn) is None:
                clients.discard(client)
        if listener in readable and (accepted := listener.accept()):
            ladder.admit(accepted, service, clients)
