"""Shows a process for each client: the conversation is unchanged, and the kernel decides which process runs.

    parent: accept, fork, close its copy          child: close the listener, converse, exit

A process costs memory, and a place in the process table until its parent has asked how it ended. The next rung starts
threads, which copy nothing.

The document's program (printed there twice): ended children stay in the process table until the next client comes;
each child keeps the listener's port after the server has ended.

Rust: examples/server_models/process.rs
"""

import ctypes
import os
import signal

import ladder

PR_SET_PDEATHSIG = 1


def child(listener, accepted, service):
    # Mended: a child that keeps the listener keeps the port, even when the server has ended.
    listener.socket.close()
    # And when the server is stopped, its clients are.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    ladder.converse(*accepted, service)
    os._exit(0)


if __name__ == "__main__":
    listener, service = ladder.begin("A process for each client.")
    # Mended: with SIGCHLD ignored the kernel forgets a child as soon as it ends. `multiprocessing`, which the document
    # uses, asks for ended children when it starts the next one.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        if not (accepted := listener.accept()):
            continue
        try:
            if os.fork() == 0:
                child(listener, accepted, service)
        except OSError as error:
            # Out of processes: this client is turned away, the others are served.
            service.refused(accepted[1], error.strerror)
        # The child's copy is the one that counts; a copy that stays open here would keep the connection open.
        accepted[0].close()
