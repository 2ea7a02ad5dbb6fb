#!/usr/bin/env python3
"""What a step costs when the ranks are on other hosts: bytes between head and rank, time beside one host, and whether
delay between head and ranks shows. Hosts are network namespaces, so that it needs root and ip(8).

  bench/actors/cluster_step.py build/release/bin/lorikeet [--rows 64] [--tokens 128] [--rounds 5]

Prints one line per setting: milliseconds a step (median of the rounds, and their range), and of rank 1's connection the
bytes a step from and to the head, TLS included.
  one host       two ranks of one server
  hosts          a rank on each of two other hosts
  through proxy  the same, rank 1's connections through a process that counts bytes
  1 ms           which lets every byte wait for a millisecond in both directions; ranks reach each other as before
"""
import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
MODEL = ROOT / "examples/models/tiny-qwen2-gptq-int4"
NAME = f"lorikeet-bench-{os.getpid()}-"
PORT, PROXY_PORT = 29501, 29502


def address(host):
    return f"10.78.0.{host + 1}"


def run(*words):
    subprocess.run(words, check=True)


@contextlib.contextmanager
def network(hosts):
    names = [NAME + "lan"] + [f"{NAME}{host}" for host in range(hosts)]
    try:
        for name in names:
            run("ip", "netns", "add", name)
        lan = names[0]
        run("ip", "-n", lan, "link", "add", "lan", "type", "bridge")
        run("ip", "-n", lan, "link", "set", "lan", "up")
        for host, name in enumerate(names[1:]):
            run("ip", "-n", lan, "link", "add", f"host{host}", "type", "veth", "peer", "name", "lan", "netns", name)
            run("ip", "-n", lan, "link", "set", f"host{host}", "master", "lan")
            run("ip", "-n", lan, "link", "set", f"host{host}", "up")
            run("ip", "-n", name, "addr", "add", address(host) + "/24", "dev", "lan")
            for device in ("lan", "lo"):
                run("ip", "-n", name, "link", "set", device, "up")
        yield
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)


@contextlib.contextmanager
def process(words, host, log):
    inside = ["ip", "netns", "exec", f"{NAME}{host}"] if host is not None else []
    with open(log, "wb") as err:
        child = subprocess.Popen(inside + words, stdout=subprocess.DEVNULL, stderr=err)
    try:
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


# ---- the client, which runs where the head does


def ask(url, rows, tokens):
    prompts = [f"Chapter {row}. Call me" for row in range(rows)]
    body = json.dumps({"prompt": prompts, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}).encode()
    request = urllib.request.Request(url + "/v1/completions", body, {"Content-Type": "application/json"})
    begin = time.perf_counter()
    with urllib.request.urlopen(request, timeout=600) as answer:
        said = json.load(answer)
    assert said["usage"]["completion_tokens"] == rows * tokens, said["usage"]
    return time.perf_counter() - begin


def client(url, rows, tokens, rounds):
    for _ in range(1200):
        try:
            with urllib.request.urlopen(url + "/health", timeout=1):
                break
        except OSError:
            time.sleep(0.1)
    short = max(2, tokens // 8)
    ask(url, rows, short)
    times = []
    for _ in range(rounds):  # prompts and the way to the door are in both
        long_one, short_one = ask(url, rows, tokens), ask(url, rows, short)
        times.append(1000 * (long_one - short_one) / (tokens - short))
    steps = (rounds + 1) * short + rounds * tokens
    print(json.dumps({"ms": times, "steps": steps}))


# ---- the proxy


async def proxy(delay, counts_file):
    counts = []

    async def carry(reader, writer, count, which):
        waiting = asyncio.Queue()

        async def deliver():
            while (item := await waiting.get()) is not None:
                due, data = item
                if (left := due - time.perf_counter()) > 0:
                    await asyncio.sleep(left)
                writer.write(data)
                await writer.drain()
            writer.close()

        delivery = asyncio.create_task(deliver())
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                count[which] += len(data)
                waiting.put_nowait((time.perf_counter() + delay, data))
        waiting.put_nowait(None)
        with contextlib.suppress(OSError):
            await delivery

    async def serve(reader, writer):
        count = [0, 0]
        counts.append(count)
        to_reader, to_writer = await asyncio.open_connection(address(0), PORT)
        await asyncio.gather(carry(reader, to_writer, count, 1), carry(to_reader, writer, count, 0))

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await asyncio.start_server(serve, address(0), PROXY_PORT)
    await stop.wait()
    server.close()
    Path(counts_file).write_text(json.dumps(max(counts, key=sum)))  # the rank's: the link says little


# ---- settings


def measure(options, scratch, hosts, delay):
    log = lambda name: scratch / (name + ".log")
    flags = ["--model", str(MODEL), "--device", "cpu", "--tp", "2", "--port", "8000", "--zmq",
             f"ipc://{scratch}/zmq", "--threads", "1", "--max-num-seqs", str(options.rows), "--disable-log-requests"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(network(3))
        if hosts:
            flags += ["--nnodes", "3", "--devices", "none", "--cluster-dir", str(scratch / "keys/head")]
        if delay is not None:
            words = [sys.executable, __file__, "--proxy", str(delay), str(scratch / "counts")]
            stack.enter_context(process(words, 0, log("proxy")))
        for host in (1, 2) if hosts else ():
            port = PROXY_PORT if delay is not None and host == 2 else PORT
            words = [options.lorikeet, "worker", "--join", f"{address(0)}:{port}", "--device", "cpu", "--cluster-dir",
                     str(scratch / "keys/worker"), "--node-name", f"host{host}", "--interface", "lan"]
            stack.enter_context(process(words, host, log(f"worker{host}")))
        stack.enter_context(process([options.lorikeet, "serve"] + flags, 0, log("head")))
        words = ["ip", "netns", "exec", f"{NAME}0", sys.executable, __file__, "--client", "http://127.0.0.1:8000",
                 str(options.rows), str(options.tokens), str(options.rounds)]
        asked = subprocess.run(words, stdout=subprocess.PIPE)
        if asked.returncode != 0:
            sys.exit(log("head").read_text())
    found = json.loads(asked.stdout)
    if delay is not None:
        found["bytes"] = [count / found["steps"] for count in json.loads((scratch / "counts").read_text())]
    return found


def main():
    if sys.argv[1:2] == ["--client"]:
        return client(sys.argv[2], *map(int, sys.argv[3:]))
    if sys.argv[1:2] == ["--proxy"]:
        return asyncio.run(proxy(float(sys.argv[2]) / 1000, sys.argv[3]))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("lorikeet")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    options.lorikeet = str(Path(options.lorikeet).resolve())
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        run(options.lorikeet, "keygen", "--cluster", str(scratch / "keys"))
        for name, hosts, delay in (("one host", False, None), ("hosts", True, None), ("through proxy", True, 0.0),
                                   ("1 ms", True, 1.0)):
            found = measure(options, scratch, hosts, delay)
            times = sorted(found["ms"])
            line = f"{name:14} {statistics.median(times):7.3f} ms ({times[0]:.3f} to {times[-1]:.3f})"
            if "bytes" in found:
                line += "  {:.0f} bytes from the head, {:.0f} to it".format(*found["bytes"])
            print(line, flush=True)


if __name__ == "__main__":
    main()
