#!/usr/bin/python3
"""What the doors cost: CPU of the head per streamed token, and what idle, slow and curious clients do to a stream.

    bench/actors/door_cost.py [--lorikeet build/release/bin/lorikeet] [--streams 64] [--tokens 400] [--rounds 5]

The example model on two ranks. CPU is that of the head's process, all of it: doors, gateway, scheduler. A crowd is 1,000
connections that rest, 500 slow ones and 200 looks at /health a second. Prints the best of the rounds, since other programs
take the machine's time too.
"""
import argparse
import json
import os
import selectors
import socket
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "abuse"), str(ROOT / "examples" / "clients")]
from lorikeet_client import Client  # noqa: E402
from server import Server, status_of  # noqa: E402

TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def post(path, body):
    text = json.dumps(body).encode()
    return (f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
            ).encode() + text


def http_streams(server, count, tokens):
    """Tokens that came, and the gaps between a stream's events in seconds."""
    selector = selectors.DefaultSelector()
    for index in range(count):
        connection = socket.create_connection(("127.0.0.1", server.http_port))
        connection.sendall(post("/v1/completions", {"prompt": "Call me", "max_tokens": tokens, "ignore_eos": True,
                                                    "seed": index, "stream": True,
                                                    "stream_options": {"include_usage": True}}))
        selector.register(connection, selectors.EVENT_READ, {"last": None, "tail": b""})
    got, gaps, left = 0, [], count
    while left:
        for key, _ in selector.select():
            piece, state, now = key.fileobj.recv(65536), key.data, time.monotonic()
            if state["last"] is not None:
                gaps.append(now - state["last"])
            state["last"] = now
            state["tail"] = (state["tail"] + piece)[-2000:]
            if b"[DONE]" not in state["tail"] and piece:
                continue
            usage = state["tail"].rsplit(b'"completion_tokens":', 1)
            got += int(usage[1].split(b",")[0]) if len(usage) == 2 else 0
            selector.unregister(key.fileobj)
            key.fileobj.close()
            left -= 1
    return got, gaps


def zmq_streams(server, count, tokens):
    client, got, left = Client(server.address), 0, count
    for index in range(count):
        client.generate(str(index), prompt="Call me", max_tokens=tokens, ignore_eos=True, seed=index)
    for kind, message in client.events():
        if kind == "done":
            got += message["usage"]["completion_tokens"]
        if kind in ("done", "failure"):
            left -= 1
            if left == 0:
                break
    client.close()
    return got, []


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Crowd:
    """1,000 connections that rest, 500 that send a byte now and then, 200 looks at /health a second."""

    def __init__(self, server):
        address = ("127.0.0.1", server.http_port)
        health = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        self.resting = [socket.create_connection(address) for _ in range(1000)]
        for connection in self.resting:
            connection.sendall(health)
        for connection in self.resting:
            connection.recv(4096)
        self.slow = [socket.create_connection(address) for _ in range(500)]
        self.curious = socket.create_connection(address)
        self.health, self.going, self.looks = health, True, 0
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        begin = time.monotonic()
        while self.going:
            self.curious.sendall(self.health)
            self.curious.recv(4096)
            self.looks += 1
            try:
                self.slow[self.looks % 500].send(b"G")
            except OSError:  # its head took too long
                self.slow[self.looks % 500] = socket.create_connection(self.curious.getpeername())
            time.sleep(max(0, begin + self.looks / 200 - time.monotonic()))

    def leave(self):
        self.going = False
        self.thread.join()
        for connection in [*self.resting, *self.slow, self.curious]:
            connection.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lorikeet", default=str(ROOT / "build" / "release" / "bin" / "lorikeet"))
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    server = Server(arguments.lorikeet, "--disable-log-requests")
    try:
        watcher = Client(server.address)
        head = status_of(watcher)["head"]["pid"]
        watcher.close()
        for name, run in (("HTTP", http_streams), ("ZeroMQ", zmq_streams)):
            costs = []
            for _ in range(arguments.rounds):
                before = cpu_seconds(head)
                tokens, _ = run(server, arguments.streams, arguments.tokens)
                costs.append((cpu_seconds(head) - before) / tokens * 1e6)
            print(f"{name}: {min(costs):.1f} us of the head's CPU per token of {arguments.streams} streams "
                  f"({', '.join(f'{cost:.1f}' for cost in costs)})", flush=True)
        crowd, shares = Crowd(server), []
        for _ in range(arguments.rounds):
            before, begin = cpu_seconds(head), time.monotonic()
            time.sleep(2)
            shares.append((cpu_seconds(head) - before) / (time.monotonic() - begin))
        crowd.leave()
        print(f"a crowd alone takes {min(shares) * 1000:.0f} ms of the head's CPU a second", flush=True)
        alone, crowded = [], []
        for _ in range(arguments.rounds):
            alone.append(percentile(http_streams(server, arguments.streams, arguments.tokens)[1], 0.99))
            crowd = Crowd(server)
            crowded.append(percentile(http_streams(server, arguments.streams, arguments.tokens)[1], 0.99))
            crowd.leave()
        for name, values in (("alone", alone), ("in a crowd", crowded)):
            print(f"p99 of the gap between a stream's events, {name}: {min(values) * 1e3:.2f} ms "
                  f"({', '.join(f'{value * 1e3:.2f}' for value in values)})", flush=True)
        print(f"the best moves by {100 * (min(crowded) / min(alone) - 1):+.1f} %")
    finally:
        server.end()


if __name__ == "__main__":
    main()
