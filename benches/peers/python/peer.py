"""What the Python programs share: the rules of ../src/lib.rs, once more. See there for what is printed when."""

import os
import sys
import time

BATCH = 1000
BUFFER = 16 * 1024
CHUNK = 10_000


def settle(budget, per, f):
    """Nanoseconds per unit of f, of which one call f(n) does n * per. The last run counts; those before it warm up."""
    units = max(2000 // per, 20)
    warm = False
    while True:
        took = f(units)
        if warm and took >= budget:
            return took / (units * per)
        warm = True
        missing = 1.1 * budget / max(took, 1)
        if missing > 1:
            units = int(units * min(max(missing, 1.5), 16)) + 1


class Gate:
    """Where the threads of a yield row begin together and end together."""

    def __init__(self, rounds):
        self.arrived = 0
        self.left = 0
        self.rounds = rounds
        self.open = False
        self.end = 0

    def through(self, yield_now):
        """What each thread does."""
        self.arrived += 1
        while not self.open:
            yield_now()
        for _ in range(self.rounds):
            yield_now()
        self.left -= 1
        if self.left == 0:
            self.end = time.perf_counter_ns()
        while self.left > 0:
            yield_now()


def field(file, name):
    """A field in kB of a file of /proc, in bytes."""
    with open(file) as lines:
        for line in lines:
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    raise KeyError(name)


def used():
    """Bytes of this process in memory, its page tables included."""
    return field("/proc/self/status", "VmRSS:") + field("/proc/self/status", "VmPTE:")


def memory(wanted, park_chunk):
    """Parks tasks by park_chunk(count) until there are enough or they take a third of the free memory."""
    most = field("/proc/meminfo", "MemAvailable:") // 3
    before = used()
    parked = 0
    limit = ""
    while parked < wanted and not limit:
        count = min(CHUNK, wanted - parked)
        park_chunk(count)
        parked += count
        if used() - before > most:
            limit = " a third of the free memory is used up"
    print(f"memory {(used() - before) / parked:.0f} bytes/task {parked}{limit}", flush=True)
    os._exit(0)  # what is parked stays so


def main(switch=None, yields=None, ping_pong=None, spawn_join=None, park_chunk=None, echo=None):
    """Does what the command line says."""
    row = sys.argv[1] if len(sys.argv) > 1 else ""
    number = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    budget = number * 1_000_000
    threads = int(row[len("yield/"):]) if row.startswith("yield/") else 0
    if row == "rows":
        there = [("switch", switch), ("yield/2", yields), ("yield/1000", yields), ("yield/100000", yields)]
        there += [("ping-pong", ping_pong), ("spawn-join", spawn_join), ("memory", park_chunk), ("echo", echo)]
        print("\n".join(name for name, function in there if function))
    elif row == "echo" and echo:
        echo()
    elif number == 0:
        sys.exit("usage: PROGRAM rows | ROW MILLISECONDS | memory TASKS | echo")
    elif row == "memory" and park_chunk:
        memory(number, park_chunk)
    elif row == "switch" and switch:
        print(f"{row} {settle(budget, 1, switch):.2f} ns/round-trip")
    elif threads and yields:
        print(f"{row} {settle(budget, threads, lambda rounds: yields(threads, rounds)):.2f} ns/yield")
    elif row == "ping-pong" and ping_pong:
        print(f"{row} {settle(budget, 1, ping_pong):.2f} ns/round-trip")
    elif row == "spawn-join" and spawn_join:
        print(f"{row} {settle(budget, BATCH, spawn_join):.2f} ns/thread")
    else:
        print(f"{row} - it has no such thing")
