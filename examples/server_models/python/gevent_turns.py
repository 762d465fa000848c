"""Shows when gevent switches: where something waits, and nowhere else.

    python3 gevent_turns.py            three that never wait run one after the other
    python3 gevent_turns.py --sleep    with `gevent.sleep` in between they take turns

It is `gevent.sleep`, or the standard one after `monkey.patch_all`: the standard one alone stops all.
Needs `gevent`: pip install gevent

Rust: examples/spawn_join.rs, and examples/sleep_interleave.rs
"""

import argparse

import gevent


def count(name, n, pause):
    for i in range(n):
        print(f"{name} {i}")
        if pause:
            gevent.sleep(0)


def main():
    parser = argparse.ArgumentParser(description="When gevent switches.")
    parser.add_argument("--sleep", action="store_true", help="wait between two lines")
    options = parser.parse_args()
    # A greenlet that is not joined does not run at all before the program ends.
    gevent.joinall([gevent.spawn(count, name, 3, options.sleep) for name in "ABC"])


if __name__ == "__main__":
    main()
