"""Shows the client: a line is sent, and its echo printed.

    python3 echo_client.py [HOST:PORT]

The documents' program (three of the four have it): one `recv` per answer, which may be less than the answer; an empty
line sends nothing, and waits for an answer to it for ever.

Rust: examples/echo_client.rs
"""

import socket
import sys


def receive(conn, count):
    """Returns exactly so many bytes."""
    answer = bytearray()
    while len(answer) < count:
        # Mended: TCP has no messages, and an answer may come in pieces.
        piece = conn.recv(count - len(answer))
        if not piece:
            sys.exit("the server has closed the connection")
        answer += piece
    return bytes(answer)


def main():
    host, _, port = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:7007").rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        sys.exit("usage: echo_client.py [HOST:PORT]")
    try:
        conn = socket.create_connection((host.strip("[]"), int(port)))
    except OSError as error:
        sys.exit(f"no connection to {host}:{port}: {error.strerror}")
    with conn:
        for line in sys.stdin:
            message = line.strip().encode()
            # Mended: nothing to send, nothing to wait for.
            if message:
                conn.sendall(message)
                print(receive(conn, len(message)).decode(errors="replace"), flush=True)


if __name__ == "__main__":
    main()
