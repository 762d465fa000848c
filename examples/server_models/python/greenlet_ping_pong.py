"""Shows two greenlets that switch to each other: one prints ---A--, the other ---B--.

    python3 greenlet_ping_pong.py [--rounds N] [--switches]

With `--switches` it prints nothing but how many switches a second there are.

The document's program: written for Python 2; `time.sleep` stops the OS thread, and both greenlets with it; no end.
Needs `greenlet`: pip install greenlet

Rust: examples/greenlet_ping_pong.rs
"""

import argparse
import time

from greenlet import greenlet


def play(rounds, show):
    """Lets A and B take turns."""

    def turns(line, other):
        for _ in range(rounds):
            show(line)
            # Mended: no sleep in between, which would stop both.
            other.switch()

    # Each names the other, so the names are looked up when they run. When A is through, `play` goes on.
    a = greenlet(lambda: turns("---A--", b))
    b = greenlet(lambda: turns("---B--", a))
    a.switch()


def main():
    parser = argparse.ArgumentParser(description="Two greenlets that switch to each other.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--switches", action="store_true", help="print how many a second")
    options = parser.parse_args()
    if not options.switches:
        play(options.rounds, print)
        return
    rounds = 1_000_000
    begin = time.perf_counter()
    play(rounds, lambda line: None)
    print(f"{2 * rounds / (time.perf_counter() - begin) / 1e6:.1f} million switches a second")


if __name__ == "__main__":
    main()
