#!/usr/bin/env python3
"""What it costs to hold answers to a schema: the time between two tokens of 32 streams, without and with one, in turn.

    bench/actors/structured_cost.py MODEL [--lorikeet build/release/bin/lorikeet] [--rounds 3] [-- FLAGS OF serve]

MODEL needs a tokenizer; `-- --device cuda --load-format dummy` measures a configuration without weights. The streams draw
at temperature 1 from prompts of ids; the first 40 tokens of each are left out.
"""
import argparse
import json
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

STREAMS, PROMPT, TOKENS, LEFT_OUT = 32, 512, 256, 40
PERSON = {"type": "object", "additionalProperties": False, "required": ["name", "age", "tags", "state"], "properties": {
    "name": {"type": "string"}, "age": {"type": "integer"}, "tags": {"type": "array", "items": {"type": "string"}},
    "state": {"enum": ["open", "closed", "waiting"]}}}
SCHEMA = {"type": "object", "additionalProperties": False, "required": ["people"], "properties": {
    "people": {"type": "array", "minItems": 200, "items": PERSON}}}


def stream(url, number, held, gaps):
    body = {"model": "m", "prompt": [(7 * number + 13 * j) % 250 + 3 for j in range(PROMPT)], "max_tokens": TOKENS,
            "temperature": 1.0, "seed": number, "stream": True}
    if held:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "people", "schema": SCHEMA}}
    else:
        body["ignore_eos"] = True
    request = urllib.request.Request(url + "/completions", json.dumps(body).encode(), {"content-type": "application/json"})
    times = [time.monotonic() for line in urllib.request.urlopen(request, timeout=300) if line.startswith(b"data: {")]
    if len(times) < TOKENS / 2:
        raise RuntimeError(f"stream {number} has {len(times)} pieces")
    gaps.extend(b - a for a, b in zip(times[LEFT_OUT:], times[LEFT_OUT + 1:-1]))


def crowd(url, held):
    gaps = []
    threads = [threading.Thread(target=stream, args=(url, i, held, gaps)) for i in range(STREAMS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(gaps) < STREAMS * (TOKENS / 2 - LEFT_OUT - 2):
        raise SystemExit("some streams failed")
    return 1e3 * statistics.median(gaps)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--lorikeet", default=str(pathlib.Path(__file__).resolve().parents[2] / "build/release/bin/lorikeet"))
    parser.add_argument("--rounds", type=int, default=3)
    at = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    arguments, flags = parser.parse_args(sys.argv[1:at]), sys.argv[at + 1:]
    scratch = tempfile.mkdtemp(prefix="lorikeet-bench-")
    said = open(scratch + "/said", "w+b")
    server = subprocess.Popen([arguments.lorikeet, "serve", arguments.model, "--served-model-name", "m", "--port", "0",
                               "--zmq", f"ipc://{scratch}/zmq", *flags], stdout=said, stderr=said)
    try:
        url = None
        while url is None:
            if server.poll() is not None:
                raise SystemExit(pathlib.Path(scratch, "said").read_text())
            lines = pathlib.Path(scratch, "said").read_text().splitlines()
            if any(line.startswith("serving ") for line in lines):
                url = next(line for line in lines if line.startswith("OpenAI API at ")).split()[-1]
            time.sleep(0.1)
        crowd(url, False)  # the prompts go to the prefix cache
        free, held = [], []
        for _ in range(arguments.rounds):
            free.append(crowd(url, False))
            held.append(crowd(url, True))
            print(f"without {free[-1]:.2f} ms, with a schema {held[-1]:.2f} ms", flush=True)
        print(f"ratio of the medians {statistics.median(held) / statistics.median(free):.3f}")
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


if __name__ == "__main__":
    main()
