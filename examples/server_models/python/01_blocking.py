"""Shows the simplest server: one client at a time.

What waits is the program. While it waits in `recv` for one client, it cannot wait in `accept` for the next, which the
kernel connects and keeps in line. The next rung gives each client a process that waits for it.

The document's program: SO_REUSEADDR after `bind`; text decoded piece by piece; an error of one client ends it for
all.

Rust: examples/server_models/blocking.rs
"""

import ladder

if __name__ == "__main__":
    listener, service = ladder.begin("One client at a time.")
    while True:
        if accepted := listener.accept():
            ladder.converse(*accepted, service)
