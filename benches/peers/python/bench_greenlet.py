"""Python's greenlet: explicit switches. It has no scheduler, so it has the row switch and the memory."""

import time

import greenlet
import peer


def switch(n):
    parent = greenlet.getcurrent()

    def echo(value):
        while True:
            value = parent.switch(value + 1)

    partner = greenlet.greenlet(echo)
    value = 7
    start = time.perf_counter_ns()
    for _ in range(n):
        value = partner.switch(value)
    took = time.perf_counter_ns() - start
    assert value == 7 + n
    return took


parked = []


def park_chunk(count):
    parent = greenlet.getcurrent()
    for _ in range(count):
        task = greenlet.greenlet(parent.switch)
        task.switch()
        parked.append(task)


peer.main(switch=switch, park_chunk=park_chunk)
