#!/usr/bin/python3
"""What the doors cost: CPU of the head per streamed token, and what idle, slow and curious clients do to a stream.

    bench/actors/door_cost.py [--lorikeet build/release/bin/lorikeet] [--rounds 5] [--pairs 16]

The example model on two ranks. CPU is that of the head's process, all of it: doors, gateway, scheduler. A crowd is 1,000
connections that rest, 500 slow ones and 200 looks at /health a second, in a process of its own. Other programs take the
machine's time, too: costs are the best of the rounds, and streams run alone and in the crowd in turn, many times, so that
what is compared has had the same neighbours. Of these the medians are printed, and of each pair how much it moved.
"""
import argparse
import json
import multiprocessing
import os
import selectors
import socket
import statistics
import sys
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


def http_loop_seconds(pid):
    """CPU of the thread that serves HTTP's connections."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        name, fields = (task / "stat").read_text().rsplit(")", 1)
        if name.endswith("(http"):
            return sum(int(field) for field in fields.split()[11:13]) / TICK
    raise LookupError("the head has no thread of the name http")


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
    """1,000 connections that rest, 500 that send a byte now and then, 200 looks at /health a second; until it is left."""

    def __init__(self, server):
        ready, tell_ready = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=self._run, args=(server.http_port, tell_ready), daemon=True)
        self.process.start()
        ready.recv()

    @staticmethod
    def _run(port, tell_ready):
        address = ("127.0.0.1", port)
        health = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        resting = [socket.create_connection(address) for _ in range(1000)]
        for connection in resting:
            connection.sendall(health)
        for connection in resting:
            connection.recv(4096)
        slow = [socket.create_connection(address) for _ in range(500)]
        curious = socket.create_connection(address)
        tell_ready.send(True)
        begin, looks = time.monotonic(), 0
        while True:
            curious.sendall(health)
            curious.recv(4096)
            looks += 1
            try:
                slow[looks % 500].send(b"G")
            except OSError:  # its head took too long
                slow[looks % 500] = socket.create_connection(address)
            time.sleep(max(0, begin + looks / 200 - time.monotonic()))

    def leave(self):
        self.process.terminate()
        self.process.join()


def print_costs(server, head, arguments):
    for name, run in (("HTTP", http_streams), ("ZeroMQ", zmq_streams)):
        costs = []
        for _ in range(arguments.rounds):
            before = cpu_seconds(head)
            tokens, _ = run(server, arguments.streams, arguments.tokens)
            costs.append((cpu_seconds(head) - before) / tokens * 1e6)
        print(f"{name}: {min(costs):.1f} us of the head's CPU per token of {arguments.streams} streams "
              f"({', '.join(f'{cost:.1f}' for cost in costs)})", flush=True)


def print_crowd(server, head, arguments):
    crowd, before, begin = Crowd(server), (cpu_seconds(head), http_loop_seconds(head)), time.monotonic()
    time.sleep(4)
    took = time.monotonic() - begin
    crowd.leave()
    print(f"a crowd alone takes {(cpu_seconds(head) - before[0]) / took * 1000:.0f} ms of the head's CPU a second, "
          f"{(http_loop_seconds(head) - before[1]) / took * 1000:.0f} ms of them in HTTP's loop", flush=True)
    alone, crowded, loops = [], [], {True: 0.0, False: 0.0}
    for index in range(2 * arguments.pairs):
        in_crowd = index % 4 in (1, 2)  # alone, crowd, crowd, alone: what drifts weighs on both
        crowd = Crowd(server) if in_crowd else None
        before = http_loop_seconds(head)
        gaps = http_streams(server, arguments.crowd_streams, arguments.crowd_tokens)[1]
        loops[in_crowd] += http_loop_seconds(head) - before
        (crowded if in_crowd else alone).append(percentile(gaps, 0.99))
        if crowd:
            crowd.leave()
    for name, values, in_crowd in (("alone", alone, False), ("in a crowd", crowded, True)):
        print(f"p99 of the gap between a stream's events, {name}: median {statistics.median(values) * 1e3:.2f} ms "
              f"({', '.join(f'{value * 1e3:.1f}' for value in values)}); HTTP's loop {loops[in_crowd]:.2f} s", flush=True)
    moved = [100 * (there / here - 1) for here, there in zip(alone, crowded)]
    print(f"the median moves by {100 * (statistics.median(crowded) / statistics.median(alone) - 1):+.1f} %, the median "
          f"of the pairs by {statistics.median(moved):+.1f} % ({', '.join(f'{one:+.0f}' for one in moved)})")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lorikeet", default=str(ROOT / "build" / "release" / "bin" / "lorikeet"))
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5, help="of the cost per token; 0: only the crowd")
    parser.add_argument("--pairs", type=int, default=16, help="of streams alone and in the crowd")
    parser.add_argument("--crowd-streams", type=int, default=16)
    parser.add_argument("--crowd-tokens", type=int, default=200)
    arguments = parser.parse_args()
    server = Server(arguments.lorikeet, "--disable-log-requests")
    try:
        watcher = Client(server.address)
        head = status_of(watcher)["head"]["pid"]
        watcher.close()
        if arguments.rounds:
            print_costs(server, head, arguments)
        print_crowd(server, head, arguments)
    finally:
        server.end()


if __name__ == "__main__":
    main()
