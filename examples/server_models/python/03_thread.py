"""Shows an OS thread for each client: the conversation is unchanged, and nothing is copied.

Each thread costs a stack of the kernel's and one of its own, and each message a switch through the kernel. In Python
the interpreter lock lets one thread compute at a time, so threads help those that wait, and no others. The next rung
has one thread for all clients.

The document's program: the socket is left to the garbage collector; no more threads: the server ends.

Rust: examples/server_models/thread.rs
"""

import threading

import ladder

if __name__ == "__main__":
    listener, service = ladder.begin("An OS thread for each client.")
    while True:
        if not (accepted := listener.accept()):
            continue
        try:
            threading.Thread(target=ladder.converse, args=(*accepted, service), daemon=True).start()
        except RuntimeError as error:
            # Mended: out of threads, this client is turned away, the others are served.
            accepted[0].close()
            service.refused(accepted[1], error)
