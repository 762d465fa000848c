"""Measures what a server's answer costs beside connections that say nothing, for any server that says where it listens.

    python3 measure.py [--idle 0,900] [--requests 2000] -- COMMAND ...

COMMAND is started, and must print `listening on HOST:PORT`. One client asks for 64 bytes, again and again. What is
printed is the CPU time of the server and of its children for each answer, in microseconds, beside that many idle
connections, each of which has been answered once. Only the server's own time counts, so a busy machine does
little harm.
"""

import argparse
import os
import resource
import socket
import subprocess
import sys


def cpu_time(root):
    """Returns the CPU time of a process and of all below it, in nanoseconds."""
    processes, total = {}, 0
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat") as stat:
                processes[int(entry)] = int(stat.read().rsplit(") ", 1)[1].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    family = {root}
    while more := {process for process, parent in processes.items() if parent in family} - family:
        family |= more
    for process in family:
        for thread in os.listdir(f"/proc/{process}/task"):
            with open(f"/proc/{process}/task/{thread}/schedstat") as schedstat:
                total += int(schedstat.read().split()[0])
    return total


def ask(conn, message):
    conn.sendall(message)
    left = len(message)
    while left:
        piece = conn.recv(left)
        if not piece:
            raise ConnectionError("the server has closed the connection")
        left -= len(piece)


def measure(command, idle, requests):
    """Returns the CPU time of an answer in microseconds."""
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        line = server.stdout.readline()
        host, _, port = line.removeprefix("listening on ").strip().rpartition(":")
        conns = []
        for _ in range(idle + 1):
            conns.append(socket.create_connection((host, int(port)), timeout=60))
            ask(conns[-1], b"hello")
        message = bytes(64)
        for _ in range(requests // 10):
            ask(conns[-1], message)
        before = cpu_time(server.pid)
        for _ in range(requests):
            ask(conns[-1], message)
        return (cpu_time(server.pid) - before) / requests / 1000
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


def main():
    parser = argparse.ArgumentParser(description="CPU time of an answer beside idle connections.")
    numbers = lambda text: [int(number) for number in text.split(",")]
    numbers.__name__ = "list of numbers"  # what a complaint calls it
    parser.add_argument("--idle", type=numbers, default=[0, 900], help="idle connections, separated by commas")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("command", nargs="+", help="a server, after --")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for idle in options.idle:
        try:
            cost = measure(options.command, idle, options.requests)
            print(f"{idle:6} idle: {cost:8.1f} us an answer", flush=True)
        except (OSError, ValueError) as error:
            sys.exit(f"{idle:6} idle: {error}")


if __name__ == "__main__":
    main()
