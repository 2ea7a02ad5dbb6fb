#!/usr/bin/python3
"""What people, programs and the system may do to a running server, done to one on the loopback.

    tests/abuse/abuse.py [--lorikeet build/release/bin/lorikeet] [--long] [--gaps N]

While each kind of abuse goes on, a stream runs beside it; it must end with the tokens that it has undisturbed. How far
apart its tokens come is printed, not judged: it depends on what else the machine does. Ends in "N passed, N failed".
Needs pyzmq, for Debian's python3.

--gaps N shows what of the gaps is the server's own, N times for each abuse: by the times at which the tokens come onto
the wire (wire.py), since a client that waits for its turn on the CPU sees gaps that nobody has sent; with a server that
the system prefers to all others and an abuser that it prefers least (groups of processes of their own: sched(7),
autogroup), since the server has as few cores here as the abuser. Needs root.
"""
import argparse
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time

import http_door
from server import EXAMPLES, ROOT, Failed, Server, check, is_closed, status_of, wait_for
from wire import Wire, port_of

sys.path.insert(0, str(ROOT / "examples" / "clients"))
import zmq  # noqa: E402
from lorikeet_client import Client, ServerLost  # noqa: E402

MIB = 1 << 20
STREAM = dict(prompt="Call me", max_tokens=600, temperature=0, ignore_eos=True)


def stream(address, fields):
    """The process of a Stream: says "streams" with its first token, then how it went."""
    tokens, gaps, end, last = [], [], None, None
    try:
        client = Client(address)
        client.generate("stream", **fields)
        for kind, message in client.events():
            now = time.monotonic()
            if kind == "delta":
                if last is None:
                    print("streams", flush=True)
                else:
                    gaps.append(now - last)
                tokens, last = tokens + message["token_ids"], now
            elif kind in ("done", "failure"):
                end = (kind, message.get("finish_reason") or message.get("code"))
                break
        client.close()
    except ServerLost as lost:
        end = ("lost", str(lost))
    if last is None:
        print("none", flush=True)
    print(json.dumps({"tokens": tokens, "gap": max(gaps, default=0.0), "end": end}), flush=True)


class Stream:
    """One request of a client in a process of its own: its tokens, and the largest gap between two of them in seconds."""

    def __init__(self, address, **fields):
        self.process = subprocess.Popen([sys.executable, "-B", __file__, "--stream", address,
                                         json.dumps({**STREAM, **fields})], stdout=subprocess.PIPE, text=True,
                                        start_new_session=True)
        prefer(self.process.pid, -20)
        check(self.process.stdout.readline() != "", "nothing streams")
        self.tokens, self.gap, self.end = [], 0.0, None

    def finish(self):
        # Not communicate(): it would not see what the first line's reading has already taken from the pipe.
        result = json.loads(self.process.stdout.readline())
        self.process.wait(timeout=180)
        self.tokens, self.gap, self.end = result["tokens"], result["gap"], tuple(result["end"])
        return self


def prefer(pid, niceness):
    """How the system treats the process's session beside others, as far as we may say so."""
    try:
        with open(f"/proc/{pid}/autogroup", "w") as group:
            group.write(str(niceness))
    except OSError:
        pass


def largest_gaps(server, abuse, long):
    """Of a stream beside the abuse, in seconds: on the wire, and as its client sees it."""
    stream = Stream(server.address)
    wire = Wire(server.port, port_of(stream.process.pid, server.port))
    try:
        abuse(server, long)
    finally:
        stream.finish()
        on_the_wire = wire.close()
    return on_the_wire, stream.gap


def show_gaps(server, times, long):
    """A line for each abuse that takes no longer than its stream."""
    prefer(server.process.pid, -20)
    prefer(os.getpid(), 19)
    print("largest gaps of a stream in ms, on the wire (as its client saw them): median, then each", flush=True)
    alone = None
    for abuse in ABUSES:
        gaps = [largest_gaps(server, abuse, long) for _ in range(times)]
        wire, client = ([round(1000 * gap[kind]) for gap in gaps] for kind in (0, 1))
        alone = statistics.median(wire) if alone is None else alone
        print(f"{abuse.__name__.replace('_', ' '):28} {statistics.median(wire):4.0f} ({statistics.median(client):.0f}), "
              f"grown by {statistics.median(wire) - alone:.0f}; {sorted(wire)} ({sorted(client)})", flush=True)


def ask(address, **fields):
    """A short request of a new client; the kind of its final answer."""
    return Stream(address, **{"max_tokens": 4, **fields}).finish().end


def served(address):
    answer = ask(address)
    check(answer == ("done", "length"), f"a good client got {answer}")


class Raw:
    """A DEALER that sends whatever frames it is given."""

    def __init__(self, address):
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.socket.connect(address)

    def send(self, kind, body, encoding=b"json"):
        self.socket.send_multipart([b"lorikeet/1", encoding, kind, body], copy=False)

    def answers(self, count, seconds):
        """Kinds of that many answers but heartbeats, fewer when the time is over."""
        found, end = [], time.monotonic() + seconds
        while len(found) < count and time.monotonic() < end:
            if self.socket.poll(200):
                frames = self.socket.recv_multipart()
                if len(frames) == 4 and frames[2] not in (b"heartbeat", b"delta"):
                    found.append(frames[2])
            else:
                self.socket.send_multipart([b"lorikeet/1", b"json", b"heartbeat", b""])
        return found

    def close(self):
        self.context.destroy(linger=0)


# ---- the abuses; each gets the server and whether time is no object


def nothing(server, long):
    pass


def no_port_but_the_clients(server, long):
    doors = {server.port, server.http_port}
    check(server.listening_ports() == doors, f"listens at {server.listening_ports()}, not at {doors} alone")


def idle_connections(server, long):
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(500)]
    served(server.address)
    check(wait_for(lambda: all(is_closed(c) for c in idle), 30), "connections that say nothing are kept")
    for connection in idle:
        connection.close()


def raw_bytes(server, long):
    header = lambda op, length: struct.pack(">BBBBIQQQ", op, 0, 0, 0, length, 1, 1, 1)  # of CAF
    pieces = [header(2, 0xFFFFFFFF), header(1, 0), header(200, 10), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
              b"\xff" + bytes(8) + b"\x7f", b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(60) + b"\x04" + b"\xff" * 8]
    pieces += [os.urandom(1 << n) for n in range(0, 17)]
    for piece in pieces * (20 if long else 2):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            try:
                connection.sendall(piece)
            except OSError:
                pass
    served(server.address)


def rubbish_messages(server, long):
    raw = Raw(server.address)
    bodies = [b"", b"{}", b"[" * 100_000, b"\xff" * 300, b'{"id":"a","prompt":"x","prompt":"y"}',
              b'{"id":"a","prompt":"x","best_of":3}', b'{"id":"a","prompt_token_ids":[1,2,-3]}']
    kinds = [b"generate", b"cancel", b"status", b"nonsense", os.urandom(40)]
    count = 0
    for _ in range(50 if long else 5):
        for body in bodies:
            for kind in kinds:
                raw.send(kind, body)
                count += 1
    raw.socket.send_multipart([b"x"] * 5000)
    check(len(raw.answers(count // 2, 60)) == count // 2, "rubbish is not answered")
    raw.close()


def empty_messages(server, long):
    raw = Raw(server.address)
    one = b'{"role":"","content":""}'
    for number, count in enumerate([200_000, 650_000] * (4 if long else 1)):
        body = b'{"id":"%d","messages":[' % number + b",".join([one] * count) + b"]}"
        raw.send(b"generate", body[:16 * MIB])
    million = struct.pack("<Q", 0) * 2 * 1_000_000  # role and content, as cereal writes them
    raw.send(b"generate", million[:16 * MIB], b"cereal")
    wanted = (8 if long else 2) + 1
    check(len(raw.answers(wanted, 120)) == wanted, "empty messages are not answered")
    raw.close()


def large_id_lists(server, long):
    raw = Raw(server.address)
    for number in range(8 if long else 2):
        raw.send(b"generate", b'{"id":"%d","prompt_token_ids":[' % number + b"1," * 4_000_000 + b"1]}")
        raw.send(b"generate", b'{"id":"%d fit","prompt_token_ids":[' % number + b"1," * 1_000_000 + b"1]}")
    wanted = 2 * (8 if long else 2)
    check(len(raw.answers(wanted, 120)) == wanted, "lists of ids are not answered")
    raw.close()


def large_bodies(server, long):
    before, most = server.memory(), 0
    raw = Raw(server.address)
    count = 256 if long else 32
    body = b'{"id":"0","max_tokens":1,"prompt":"' + b"a " * (8 * MIB - 100) + b'"}'
    for _ in range(count):
        raw.send(b"generate", body)
    end, answered = time.monotonic() + (300 if long else 60), 0
    while answered < count and time.monotonic() < end:
        answered += len(raw.answers(count, 0.5))
        most = max(most, server.memory())
    print(f"    {answered} of {count} bodies of 16 MiB answered; the largest process grew by {(most - before) // MIB} MiB")
    check(most - before < 2048 * MIB, f"memory grew by {(most - before) // MIB} MiB")
    raw.close()
    served(server.address)


def killed_clients(server, long):
    program = ("import sys; sys.path.insert(0, sys.argv[1]); from lorikeet_client import Client; c = Client(sys.argv[2]);"
               "c.generate('0', prompt='Call me', max_tokens=1500, ignore_eos=True)\n"
               "for kind, message in c.events(): print(kind, flush=True)")
    clients = [subprocess.Popen([sys.executable, "-c", program, str(ROOT / "examples" / "clients"), server.address],
                                stdout=subprocess.PIPE) for _ in range(40 if long else 8)]
    for client in clients:
        client.stdout.readline()
        client.kill()
        client.wait()
    watcher = Client(server.address)
    check(wait_for(lambda: status_of(watcher)["live_requests"] <= 1, 60), "requests of killed clients run on")
    watcher.close()


def reader_that_sleeps(server, long):
    raw = Raw(server.address)
    for number in range(64):
        raw.send(b"generate", json.dumps({"id": str(number), "prompt": "Call me", "max_tokens": 1500, "logprobs": 20,
                                          "ignore_eos": True}).encode())
    served(server.address)
    raw.close()


ABUSES = [nothing, no_port_but_the_clients, idle_connections, raw_bytes, rubbish_messages, empty_messages,
          large_id_lists, large_bodies, killed_clients, reader_that_sleeps, *http_door.ABUSES]


# ---- abuses that take a server of their own


def closed_stderr(lorikeet, long):
    server = Server(lorikeet)
    try:
        server.close_stderr()
        served(server.address)
        client = Client(server.address)
        for epoch in range(1, 4 if long else 2):
            os.kill(status_of(client)["ranks"][epoch % 2]["pid"], signal.SIGKILL)
            check(wait_for(lambda: status_of(client)["epoch"] == epoch + 1 and status_of(client)["serving"]),
                  "a lost rank does not come back")
            served(server.address)
        client.close()
        check(server.stop() == 0, "SIGTERM is not obeyed")
    finally:
        server.end()


def closed_streams(lorikeet, long):
    for flags in [], ["--log-json"]:
        server = Server(lorikeet, *flags, closed=(0, 2))
        try:
            served(server.address)
            for process in [server.process.pid, *server.children()]:
                for descriptor in 0, 2:
                    there = os.readlink(f"/proc/{process}/fd/{descriptor}")
                    check(there == os.devnull or there.startswith("pipe:"), f"descriptor {descriptor} is {there}")
            check(server.stop() == 0, "SIGTERM is not obeyed")
        finally:
            server.end()


def few_descriptors(lorikeet, long):
    server = Server(lorikeet, "--no-http", descriptors=64)
    try:
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
        served(server.address)
        client = Client(server.address)
        os.kill(status_of(client)["ranks"][1]["pid"], signal.SIGKILL)
        idle += [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
        check(wait_for(lambda: status_of(client)["epoch"] == 2 and status_of(client)["serving"]),
              "a lost rank does not come back while all descriptors are taken")
        served(server.address)
        client.close()
        for connection in idle:
            connection.close()
        check(server.stop() == 0, "SIGTERM is not obeyed")
    finally:
        server.end()


def signals_to_the_group(lorikeet, long):
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        server = Server(lorikeet, "--drain-timeout", "0")
        try:
            streams = [Stream(server.address, max_tokens=1500) for _ in range(4)]
            children = server.children()
            status = server.stop_group(number)
            check(status == 0, f"signal {number}: it ended with {status}")
            for one in streams:
                end = one.finish().end
                check(end == ("failure", "shutting_down"), f"signal {number}: a client got {end}")
            check(wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in children)), "a child is left")
        finally:
            server.end()
        if not long:
            break


class Copier(threading.Thread):
    """Copies one content after the other over a file, in pieces, as `cp` does on a slow disk."""

    def __init__(self, path, contents):
        super().__init__(daemon=True)
        self.path, self.contents, self.over = path, contents, threading.Event()
        self.start()

    def run(self):
        while not self.over.is_set():
            for content in self.contents:
                with open(self.path, "wb", buffering=0) as file:
                    for at in range(0, len(content), len(content) // 16):
                        file.write(content[at:at + len(content) // 16])
                        time.sleep(0.005)


def adapter_that_is_written_over(lorikeet, long):
    """Whoever asks gets one whole content or the other, never a reason and never something between."""
    with tempfile.TemporaryDirectory(prefix="lorikeet-abuse-") as scratch:
        directory = pathlib.Path(scratch, "moby")
        shutil.copytree(EXAMPLES / "adapters" / "moby", directory)
        tensors = directory / "adapter_model.safetensors"
        trained = tensors.read_bytes()
        header = 8 + int.from_bytes(trained[:8], "little")
        contents = [trained, trained[:header] + bytes(len(trained) - header)]  # of zeros: the base model
        server = Server(lorikeet, adapters={"moby": directory})
        try:
            allowed = []
            for content in contents:
                tensors.write_bytes(content)
                allowed.append(Stream(server.address, adapter="moby", max_tokens=8).finish().tokens)
            check(allowed[0] != allowed[1], "the contents do not differ")
            copier = Copier(tensors, contents)
            try:
                for _ in range(300 if long else 30):
                    answer = Stream(server.address, adapter="moby", max_tokens=8).finish()
                    check(answer.end == ("done", "length"), f"a request got {answer.end}")
                    check(answer.tokens in allowed, f"a request got {answer.tokens}, of neither content")
            finally:
                copier.over.set()
                copier.join()
            check(Stream(server.address, adapter="moby", max_tokens=8).finish().tokens == allowed[1],
                  "what was written last is not served")
            check(server.stop() == 0, "SIGTERM is not obeyed")
        finally:
            server.end()


def ranks_that_talk(lorikeet, long):
    """Whatever a library in a rank says, a log in JSON has an object in every line."""
    server = Server(lorikeet, "--log-json")
    try:
        client = Client(server.address)
        for row in status_of(client)["ranks"]:
            with open(f"/proc/{row['pid']}/fd/2", "wb", buffering=0) as said:
                said.write(b"\xff\x00 \"odd\" {\n{\n\n[1]\nnull\n\r\x1b[2J\n")
                said.write(b"x" * ((64 if long else 4) * MIB) + b"\n")
        served(server.address)
        client.close()
        check(server.stop() == 0, "SIGTERM is not obeyed")
        server.listener.join(timeout=30)
        for line in server.said.splitlines():
            check(isinstance(json.loads(line), dict), f"a line is {line[:80]}")
        check(b"[2J" in server.said and len(server.said) > MIB, "what the ranks said is not there")
    except json.JSONDecodeError as error:
        raise Failed(f"a line of the log is no JSON: {error}") from error
    finally:
        server.end()


OWN_SERVER = [closed_stderr, closed_streams, few_descriptors, signals_to_the_group, adapter_that_is_written_over, ranks_that_talk]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lorikeet", default=str(ROOT / "build" / "release" / "bin" / "lorikeet"))
    parser.add_argument("--stream", nargs=2, metavar=("ADDRESS", "FIELDS"), help=argparse.SUPPRESS)
    parser.add_argument("--gaps", type=int, metavar="N", help="how far apart a stream's tokens come, N times each; root")
    parser.add_argument("--long", action="store_true", help="more of everything; minutes instead of seconds")
    arguments = parser.parse_args()
    if arguments.stream:
        return stream(arguments.stream[0], json.loads(arguments.stream[1]))
    if arguments.gaps and os.getsid(0) != os.getpid():  # it is preferred least, and the terminal's session is not
        return subprocess.call([sys.executable, "-B", *sys.argv], start_new_session=True)
    passed, failed = 0, []

    def report(name, error, seconds, note=""):
        nonlocal passed
        print(f"{'FAIL' if error else 'pass'} {name} ({seconds:.1f} s){note}" + (f": {error}" if error else ""), flush=True)
        if error:
            failed.append(name)
        else:
            passed += 1

    server = Server(arguments.lorikeet)
    try:
        if arguments.gaps:
            return show_gaps(server, arguments.gaps, arguments.long)
        reference = Stream(server.address).finish()
        for abuse in ABUSES:
            name, error, begin = abuse.__name__.replace("_", " "), None, time.monotonic()
            beside = Stream(server.address)
            try:
                abuse(server, arguments.long)
            except (Failed, ServerLost, RuntimeError, OSError, zmq.ZMQError) as problem:
                error = f"{type(problem).__name__}: {problem}"
            beside.finish()
            seconds = time.monotonic() - begin
            if error is None and (beside.end != ("done", "length") or beside.tokens != reference.tokens):
                error = f"the stream beside it ended in {beside.end} with {len(beside.tokens)} tokens"
            report(name, error, seconds, f", largest gap {beside.gap * 1000:.0f} ms")
        begin = time.monotonic()
        status = server.stop()
        report("ends when it is asked to", None if status == 0 else f"exit status {status}", time.monotonic() - begin)
    finally:
        server.end()
    if found := server.sanitizer_report():
        report("a sanitizer's report", found, 0)
    for abuse in OWN_SERVER:
        error, begin = None, time.monotonic()
        try:
            abuse(arguments.lorikeet, arguments.long)
        except (Failed, ServerLost, RuntimeError, OSError, subprocess.TimeoutExpired) as problem:
            error = f"{type(problem).__name__}: {problem}"
        report(abuse.__name__.replace("_", " "), error, time.monotonic() - begin)
    print(f"{passed} passed, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
