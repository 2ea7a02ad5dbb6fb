"""What strangers may send to the HTTP door; see abuse.py, which runs this beside a stream over ZeroMQ."""
import contextlib
import http.client
import json
import socket
import struct
import time

from server import check, is_closed, wait_for

MIB = 1 << 20
PATIENCE = 60
JSON = {"Content-Type": "application/json"}


def connect(server):
    return socket.create_connection(("127.0.0.1", server.http_port), timeout=PATIENCE)


def reset(connection):
    """Ends it without a farewell."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def ask(server, method, path, body=None, headers=JSON):
    """The status and the body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=PATIENCE)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def raw_status(server, data):
    """The status of the answer to these bytes; the server must end the connection behind it."""
    with connect(server) as connection:
        with contextlib.suppress(OSError):  # it may end the connection before it has read everything
            connection.sendall(data)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := connection.recv(65536):
                answer += piece
        check(answer.startswith(b"HTTP/1.1 "), f"the answer to {data[:60]!r} begins with {answer[:60]!r}")
        return int(answer[9:12])


def expect(server, data, *statuses):
    status = raw_status(server, data)
    check(status in statuses, f"{data[:80]!r} is answered with {status}, not with {statuses}")


def served(server):
    status, body = ask(server, "POST", "/v1/completions", json.dumps({"prompt": "Call me", "max_tokens": 4}))
    check(status == 200 and json.loads(body)["usage"]["completion_tokens"] == 4, f"a good client got {status}: {body[:200]}")


@contextlib.contextmanager
def nothing_left_of_it(server, mebibytes=256):
    """Afterwards the server has the descriptors that it had, and about the memory."""
    descriptors, memory = server.descriptors(), server.memory()
    yield
    check(wait_for(lambda: server.descriptors() <= descriptors + 4, PATIENCE),
          f"{server.descriptors()} descriptors where there were {descriptors}")
    grown = (server.memory() - memory) // MIB
    check(grown < mebibytes, f"memory grew by {grown} MiB")


# ---- the abuses; each gets the server and whether time is no object


def http_half_open(server, long):
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    with nothing_left_of_it(server):
        for size in [*range(0, len(head) + 1, 7), len(head)] * (20 if long else 2):
            for end in (socket.socket.close, reset):
                connection = connect(server)
                connection.sendall((head + b'{"prompt": ')[:size])
                end(connection)
        served(server)


def http_dropped_streams(server, long):
    body = json.dumps({"prompt": "Call me", "max_tokens": 1500, "ignore_eos": True, "stream": True}).encode()
    head = (f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n").encode()
    with nothing_left_of_it(server):
        for _ in range(40 if long else 8):
            connection = connect(server)
            connection.sendall(head + body)
            check(connection.recv(1) != b"", "nothing streams")
            reset(connection)
        check(wait_for(lambda: json.loads(ask(server, "GET", "/load")[1])["server_load"] == 0, PATIENCE),
              "requests of dropped connections run on")


def http_large_bodies(server, long):
    with nothing_left_of_it(server, 1024):
        for _ in range(32 if long else 4):
            text = json.dumps({"prompt": "a " * (5 * MIB)})
            status, body = ask(server, "POST", "/v1/completions", text)
            check((status, json.loads(body)["error"]["code"]) == (400, "context_length_exceeded"), f"{status}: {body[:200]}")
        status, _ = ask(server, "POST", "/v1/completions", json.dumps({"prompt": [7] * 100_000}))
        check(status == 400, f"100,000 ids are answered with {status}")
        status, _ = ask(server, "POST", "/v1/completions", json.dumps({"prompt": " whale" * 100_000}))
        check(status == 400, f"100,000 words are answered with {status}")
        expect(server, b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                       b"Content-Length: 100000000000\r\n\r\n", 413)
        served(server)


def http_wrong_bodies(server, long):
    bodies = [b"", b"{", b"\xff" * 300, b'{"prompt": "\xed\xa0\x80"}', b'{"prompt": "x", "prompt": "y"}', b"[" * 100_000,
              b'{"a":' * 100_000, b'{"prompt": 1e999}', b'{"prompt": "x", "n": 1e30}',
              b'{"prompt": ["x", 1]}', b'{"prompt": [-1]}', b"null", b'"x"', b'{"prompt": "x"} {}']
    for body in bodies:
        for path in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"):
            status, answer = ask(server, "POST", path, body)
            if path == "/tokenize" and status == 200:
                continue  # some of them are right there
            check(status == 400 and "error" in json.loads(answer), f"{path} {body[:60]!r}: {status} {answer[:200]}")
    served(server)


def http_smuggling(server, long):
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    second = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    with nothing_left_of_it(server):
        for wrong in (b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", b"Content-Length: 5, 6\r\n\r\n",
                      b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", b"Content-Length: -1\r\n\r\n",
                      b"Content-Length: 0x5\r\n\r\n", b"Transfer-Encoding: gzip, chunked\r\n\r\n",
                      b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b"Transfer-Encoding: chunked\r\n\r\n5;\nx\r\n",
                      b"Host: y\r\nContent-Length: 0\r\n\r\n", b"Content-Length: 5\n\r\n",
                      b"A\x00: b\r\n\r\n", b"A : b\r\n\r\n", b"A: b\r\n Content-Length: 5\r\n\r\n",
                      b"Transfer-Encoding:\r\n\tchunked\r\n\r\n"):
            expect(server, head + wrong + b"12345" + second, 400, 501)
        expect(server, b"GET /health HTTP/1.1\nHost: x\n\n", 400)
        expect(server, b"GET /health HTTP/9.9\r\nHost: x\r\n\r\n", 400, 505)
        expect(server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, 505)
        served(server)


def http_large_heads(server, long):
    with nothing_left_of_it(server):
        for head in (b"X: " + b"x" * MIB + b"\r\n", b"X: x\r\n" * 10_000, b"X" * MIB):
            expect(server, b"GET /health HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n", 431, 400)
        expect(server, b"GET /" + b"x" * MIB + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431, 414, 400)
        served(server)


def http_slow_clients(server, long):
    """A byte now and then: heads that are never whole are cut, and nobody waits for them."""
    with nothing_left_of_it(server):
        slow = [connect(server) for _ in range(400 if long else 100)]
        head = b"GET /health HTTP/1.1\r\nHost: " + b"x" * 10_000
        at, end = 0, time.monotonic() + PATIENCE
        while time.monotonic() < end and not all(is_closed(connection) for connection in slow):
            for connection in slow:
                with contextlib.suppress(OSError):
                    connection.send(head[at:at + 1])
            at += 1
            begin = time.monotonic()
            check(ask(server, "GET", "/health")[0] == 200, "it is not healthy beside slow clients")
            time.sleep(max(0, 0.2 - (time.monotonic() - begin)))
        check(all(is_closed(connection) for connection in slow), "slow heads are waited for without end")
        for connection in slow:
            connection.close()
        served(server)


ABUSES = [http_half_open, http_dropped_streams, http_large_bodies, http_wrong_bodies, http_smuggling, http_large_heads,
          http_slow_clients]
