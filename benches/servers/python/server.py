"""gevent with a greenlet for each connection: the services of ../src, once more.

    PROGRAM hello | kv | files FOLDER
"""

import os
import re
import socket
import sys

import gevent.server

BUFFER = 16 * 1024
LONGEST_HEAD = 8 * 1024
LONGEST_LINE = 8 * 1024
LONGEST_STRING = 1024 * 1024
MOST_HEADERS = 64
MOST_STRINGS = 1024
MUCH = 64 * 1024
HELLO = b"Hello, world!"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 13\r\n\r\n" + HELLO

BAD = b"400 Bad Request"
TOO_LARGE = b"431 Request Header Fields Too Large"
CHUNKED = b"501 Not Implemented"
PLAIN, TOLD, CLOSE = b"", b"connection: keep-alive\r\n", b"connection: close\r\n"

FIRST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([^ \x00-\x1f\x7f]+) HTTP/1\.([01])\r?$")
HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t\r]*$")


class Refused(Exception):
    """A request that ends the connection."""


def parse(data, at):
    """The request that begins at a place: method, path, whether the connection goes on, bytes of the body, and where the
    head ends. None if more bytes are needed."""
    while data[at : at + 1] in (b"\r", b"\n"):
        at += 1
    end = data.find(b"\n\r\n", at, at + LONGEST_HEAD)
    if end < 0:
        if len(data) - at >= LONGEST_HEAD:
            raise Refused(TOO_LARGE)
        # A first line that is wrong is answered before the head is whole.
        line = data.find(b"\n", at)
        if line >= 0 and not FIRST_LINE.match(data[at:line]):
            raise Refused(BAD)
        return None
    lines = data[at:end].split(b"\n")
    first = FIRST_LINE.match(lines[0])
    if not first:
        raise Refused(BAD)
    if len(lines) - 1 > MOST_HEADERS:
        raise Refused(TOO_LARGE)
    method, path, version = first.groups()
    keep, body = (PLAIN if version == b"1" else CLOSE), None
    for line in lines[1:]:
        header = HEADER.match(line)
        if not header:
            raise Refused(BAD)
        name, value = header[1].lower(), header[2]
        if name == b"connection":
            words = [word.strip().lower() for word in value.split(b",")]
            if b"close" in words:
                keep = CLOSE
            elif version == b"0" and b"keep-alive" in words:
                keep = TOLD
        elif name == b"content-length":
            if not value.isdigit() or (body is not None and body != int(value)):
                raise Refused(BAD)
            body = int(value)
        elif name == b"transfer-encoding":
            raise Refused(CHUNKED)
    return method, path, keep, body or 0, end + 3


def head(status, length, keep):
    kind = b"content-type: text/plain\r\n" if status == b"200 OK" else b""
    return b"HTTP/1.1 %s\r\n%s%scontent-length: %d\r\n\r\n" % (status, kind, keep, length)


def http(client, answer):
    """Answers requests by a function, which adds to a list, and may send it."""
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    data, skip, keep = b"", 0, PLAIN
    while keep != CLOSE and (read := client.recv(BUFFER)):
        data = data + read if data else read
        at, answers = 0, []
        try:
            while keep != CLOSE:
                # The body of the last request, then the next request.
                skipped = min(skip, len(data) - at)
                skip, at = skip - skipped, at + skipped
                request = parse(data, at) if at < len(data) else None
                if request is None:
                    break
                method, path, keep, skip, at = request
                answer(client, answers, method, path, keep)
        except Refused as refused:
            keep = CLOSE
            answers.append(head(refused.args[0], 0, CLOSE))
        data = data[at:]
        if answers:
            client.sendall(b"".join(answers))


def hello(_, answers, method, _path, keep):
    if keep == PLAIN and method != b"HEAD":
        answers.append(ANSWER)
        return
    answers.append(head(b"200 OK", len(HELLO), keep))
    if method != b"HEAD":
        answers.append(HELLO)


def file(folder):
    """The function that sends files of a folder: `sendfile` of gevent's sockets, which reads and writes."""
    plain = re.compile(rb"/[A-Za-z0-9_-][A-Za-z0-9._-]*$")

    def answer(client, answers, method, path, keep):
        if method not in (b"GET", b"HEAD"):
            answers.append(head(b"405 Method Not Allowed", 0, keep))
            return
        name = os.path.join(folder, os.fsdecode(path[1:]))
        if not plain.match(path) or not os.path.isfile(name):
            answers.append(head(b"404 Not Found", 0, keep))
            return
        with open(name, "rb") as found:
            answers.append(head(b"200 OK", os.fstat(found.fileno()).st_size, keep))
            if method == b"GET":
                client.sendall(b"".join(answers))
                answers.clear()
                client.sendfile(found)

    return answer


def number(data, at, problem):
    """The number that begins at a place, and the place behind its line; None if more bytes are needed."""
    end = data.find(b"\r", at)
    text = data[at:] if end < 0 else data[at:end]
    digits = text[1:] if text[:1] == b"-" else text
    if len(digits) > 10 or (digits and not digits.isdigit()) or (end >= 0 and not digits):
        raise Refused(problem)
    return None if end < 0 or len(data) < end + 2 else (int(text), end + 2)


def command(data, at):
    """The words of the command that begins at a place, and the place behind; None if more bytes are needed."""
    if data[at : at + 1] != b"*":
        end = data.find(b"\n", at, at + LONGEST_LINE)
        if end < 0 and len(data) - at >= LONGEST_LINE:
            raise Refused(b"too big inline request")
        return None if end < 0 else (data[at:end].split(), end + 1)
    found = number(data, at + 1, b"invalid multibulk length")
    if found is None:
        return None
    count, at = found
    if count > MOST_STRINGS:
        raise Refused(b"invalid multibulk length")
    words = []
    for _ in range(count):
        if at >= len(data):
            return None
        if data[at : at + 1] != b"$":
            raise Refused(b"expected '$'")
        found = number(data, at + 1, b"invalid bulk length")
        if found is None:
            return None
        length, at = found
        if not 0 <= length <= LONGEST_STRING:
            raise Refused(b"invalid bulk length")
        if len(data) < at + length + 2:
            return None
        words.append(data[at : at + length])
        at += length + 2
    return words, at


def integer(text):
    """An integer as Redis has it, or None."""
    return int(text) if re.fullmatch(rb"0|-?[1-9][0-9]{0,18}", text) and -(2**63) <= int(text) < 2**63 else None


def bulk(value):
    return b"$-1\r\n" if value is None else b"$%d\r\n%s\r\n" % (len(value), value)


def obey(store, words):
    name, count = words[0].lower(), len(words)
    if name == b"ping" and count == 1:
        return b"+PONG\r\n"
    if name in (b"ping", b"echo") and count == 2:
        return bulk(words[1])
    if name == b"get" and count == 2:
        return bulk(store.get(words[1]))
    if name == b"set" and count == 3:
        store[words[1]] = words[2]
        return b"+OK\r\n"
    if name == b"incr" and count == 2:
        old = integer(store.get(words[1], b"0"))
        if old is None or old == 2**63 - 1:
            return b"-ERR value is not an integer or out of range\r\n"
        store[words[1]] = b"%d" % (old + 1)
        return b":%d\r\n" % (old + 1)
    if name == b"del" and count > 1:
        return b":%d\r\n" % sum(store.pop(key, None) is not None for key in words[1:])
    if name == b"config" and count == 3:
        return b"*0\r\n"
    if name in (b"ping", b"echo", b"get", b"set", b"incr", b"del", b"config"):
        return b"-ERR wrong number of arguments for '%s' command\r\n" % name
    return b"-ERR unknown command\r\n"


def key_value(client, store):
    """Obeys commands until the connection ends."""
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    data = b""
    while read := client.recv(BUFFER):
        data = data + read if data else read
        at, answers, size, ends = 0, [], 0, False
        try:
            while at < len(data) and (found := command(data, at)):
                words, at = found
                if words:
                    answers.append(obey(store, words))
                    size += len(answers[-1])
                if size > MUCH:
                    client.sendall(b"".join(answers))
                    answers, size = [], 0
        except Refused as refused:
            ends = True
            answers.append(b"-ERR Protocol error: %s\r\n" % refused.args[0])
        data = data[at:]
        if answers:
            client.sendall(b"".join(answers))
        if ends:
            return


def main():
    service = sys.argv[1] if len(sys.argv) > 1 else ""
    if service == "hello":
        serve = lambda client, _: http(client, hello)
    elif service == "kv":
        store = {}
        serve = lambda client, _: key_value(client, store)
    elif service == "files" and len(sys.argv) > 2:
        answer = file(sys.argv[2])
        serve = lambda client, _: http(client, answer)
    else:
        sys.exit("usage: PROGRAM hello | kv | files FOLDER")
    server = gevent.server.StreamServer(("127.0.0.1", 0), serve, backlog=1024)
    server.start()
    print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


main()
