"""Two of the servers of streams on gevent: TLS echo and a proxy. No chat room: gevent has no WebSocket.

    streams.py tls | proxy ADDR
"""

import socket
import subprocess
import sys
import tempfile

import gevent
from gevent import ssl
from gevent import socket as green
from gevent.server import StreamServer

BUFFER = 16 * 1024


def tls_context():
    """Makes a certificate that nothing but a driver of this package trusts."""
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = folder + "/certificate", folder + "/key"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
            + ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        return context


def echo(stream, context):
    """Sends back what comes, until the client says that it has ended."""
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with context.wrap_socket(stream, server_side=True) as tls:
        while data := tls.recv(BUFFER):
            tls.sendall(data)


def pump(source, target):
    """Passes on one direction, and its end."""
    try:
        while data := source.recv(BUFFER):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        # Nothing goes on: the other direction sees that.
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def forward(client, to):
    """Passes on both directions."""
    with green.create_connection(to) as server:
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = gevent.spawn(pump, server, client)
        pump(client, server)
        back.join()


def quietly(serve, *more):
    """What ends a connection is no concern of the others."""

    def handle(stream, _addr):
        try:
            serve(stream, *more)
        except OSError:
            pass

    return handle


def main(arguments):
    if arguments == ["tls"]:
        handle = quietly(echo, tls_context())
    elif len(arguments) == 2 and arguments[0] == "proxy":
        host, port = arguments[1].rsplit(":", 1)
        handle = quietly(forward, (host, int(port)))
    else:
        sys.exit("usage: streams.py tls | proxy ADDR")
    server = StreamServer(("127.0.0.1", 0), handle, backlog=1024)
    server.start()
    print("listening on 127.0.0.1:%d" % server.server_port, flush=True)
    server.serve_forever()


main(sys.argv[1:])
