"""Shows nothing by hand: `converse` of the first rung, unchanged, in a greenlet for each client.

`patch_all` replaces the blocking calls of the standard library by such as switch to gevent's loop. It must come
first: what was imported by name before keeps the calls that block.

The document's program: a short `send` loses the rest; an error skips the `close`.
Needs `gevent`: pip install gevent

Rust: examples/server_models/green.rs, and green_patched.rs for `patch_all`
"""

from gevent import monkey

monkey.patch_all()

import gevent

import ladder

if __name__ == "__main__":
    listener, service = ladder.begin("A greenlet for each client, switched by gevent.")
    while True:
        if accepted := listener.accept():
            gevent.spawn(ladder.converse, *accepted, service)
