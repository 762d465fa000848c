"""gevent. Ping-pong is two semaphores, a yield is gevent.sleep(0), a parked task waits for the hub."""

import socket
import time

import gevent
import gevent.lock
import gevent.server
import peer


def yields(threads, rounds):
    gate = peer.Gate(rounds)
    tasks = [gevent.spawn(gate.through, gevent.sleep) for _ in range(threads)]
    while gate.arrived < threads:
        gevent.sleep(0)
    gate.left = threads
    start = time.perf_counter_ns()
    gate.open = True
    gevent.joinall(tasks)
    return gate.end - start


def ping_pong(n):
    to_pong, to_ping = gevent.lock.Semaphore(0), gevent.lock.Semaphore(0)

    def pong():
        for _ in range(n):
            to_pong.acquire()
            to_ping.release()

    partner = gevent.spawn(pong)
    start = time.perf_counter_ns()
    for _ in range(n):
        to_pong.release()
        to_ping.acquire()
    took = time.perf_counter_ns() - start
    partner.join()
    return took


def spawn_join(batches):
    start = time.perf_counter_ns()
    for _ in range(batches):
        tasks = [gevent.spawn(int, i) for i in range(peer.BATCH)]
        for task in tasks:
            task.join()
    return time.perf_counter_ns() - start


parked = []


def park_chunk(count):
    park = gevent.get_hub().switch
    parked.extend(gevent.spawn(park) for _ in range(count))
    gevent.sleep(0)


def serve(client, _):
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := client.recv(peer.BUFFER):
        client.sendall(data)


def echo():
    server = gevent.server.StreamServer(("127.0.0.1", 0), serve, backlog=1024)
    server.start()
    print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


peer.main(yields=yields, ping_pong=ping_pong, spawn_join=spawn_join, park_chunk=park_chunk, echo=echo)
