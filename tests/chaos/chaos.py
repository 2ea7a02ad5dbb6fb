#!/usr/bin/python3
"""Kills, stops and cuts off the processes of a running server while streams run, and holds every stream to its tokens.

    tests/chaos/chaos.py [--lorikeet build/release/bin/lorikeet] [--seed N] [--faults N] [--ranks 1,2,4] [--long]

Ten streams (the base and four adapters, greedy and drawn) run all the time on CPU ranks; each must end with the tokens
that it has undisturbed, each of them once. Only the head's death may end streams, which are then sent again. Afterwards
blocks, leases, claims, descriptors, threads, memory and processes must be back to where they were. The faults and their
order follow from the seed, which is printed. --long: half an hour. Needs pyzmq, for Debian's python3.
"""
import argparse
import os
import pathlib
import random
import statistics
import sys
import tempfile
import time

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS / "abuse"))
from server import ROOT, Server, memory_of, status_of, wait_for  # noqa: E402

from faults import Faults  # noqa: E402
from streams import Client, ServerLost, Streams, adapters_in, requests, undisturbed  # noqa: E402

BEAT = 0.5  # seconds between heartbeats; ten are waited for
MOST_GROWTH = 32 << 20  # bytes that supervisor and head may hold after the faults above what they held before


class Failed(Exception):
    pass


def check(condition, sentence):
    if not condition:
        raise Failed(sentence)


def status(address):
    for _ in range(20):
        client = Client(address)
        try:
            return status_of(client)
        except (ServerLost, RuntimeError):
            time.sleep(0.1)
        finally:
            client.close()
    raise Failed("the server does not tell its status")


def holdings(server):
    """What the supervisor, which lives through everything, has open."""
    of = pathlib.Path(f"/proc/{server.process.pid}")
    return {"descriptors": len(list((of / "fd").iterdir())), "threads": len(list((of / "task").iterdir()))}


def memory(server):
    """Of the processes that outlive ranks, whose KV caches fill as they are used."""
    return {"supervisor": memory_of(server.process.pid), "head": memory_of(server.processes().get("head"))}


def is_quiet(state):
    adapters = [(a["leases"], a["claims"]) for a in state["adapters"]]
    return (state["serving"] and state["live_requests"] == 0 and state["adapter_transfers"] == 0
            and state["engine"]["blocks_free"] == state["engine"]["blocks_total"]
            and all(held == (0, 0) for held in adapters) and state["engine"]["plans_in_flight"] == 0)


def wait_for_another_group(server, epoch):
    """Until one of a later epoch serves: what the client has still to read of the lost one is not taken for recovery."""
    def has_come():
        state = status(server.address)
        return state["serving"] and state["epoch"] > epoch
    check(wait_for(has_come, 60), f"no group serves after that of epoch {epoch}")


def told_of(state, epoch):
    """What the server says its pauses since then were spent on, in seconds."""
    parts = ("detect", "fence", "start", "join", "first_token", "again")
    pauses = [pause for pause in state["last_pauses"] if pause["epoch"] >= epoch]
    return ", ".join(f"{part} {sum(pause[part + '_us'] for pause in pauses) / 1e6:.2f}" for part in parts) if pauses else "none"


def recover(streams, when, patience):
    """Waits until streams have gone on for a while after what happened at `when`."""
    check(wait_for(lambda: streams.tokens_since(when) > 40, patience), f"no stream goes on within {patience} s")


def disturb(server, ranks, seed, count, tokens, seconds):
    """Pauses in seconds, by kind of fault."""
    wanted = requests(tokens)
    expected = undisturbed(server.address, wanted)
    before, held, children = holdings(server), memory(server), set(server.processes())
    streams, faults, pauses = Streams(server.address, wanted, expected), Faults(server, ranks, seed, BEAT), {}
    chance = random.Random(seed)
    recover(streams, time.monotonic(), 60)
    end = time.monotonic() + seconds
    for number in range(count):
        if time.monotonic() > end:
            break
        kind = faults.draw()
        time.sleep(chance.uniform(0, 0.3))
        state = status(server.address)
        hit = f"epoch {state['epoch']}, {state['engine']['running']} run, {state['adapter_transfers']} adapters on their way"
        streams.begin_pause()
        when = time.monotonic()
        what = faults.kinds()[kind][1]()
        if kind.startswith("kill") or "stop" in kind:
            wait_for_another_group(server, state["epoch"])
        recover(streams, time.monotonic(), 60)
        # It may be one that is missed late, or never.
        if kind == "cut a socket":
            time.sleep(1.5 * faults.bound)
            recover(streams, time.monotonic(), 60)
        pause = streams.longest_gap(when)
        pauses.setdefault(kind, []).append(pause)
        told = told_of(status(server.address), state["epoch"])
        print(f"  {number + 1:3}  {pause:6.2f} s  {what} ({hit}); the server says: {told}", flush=True)
        check(not streams.wrong, f"{what}: " + "; ".join(streams.wrong[:3]))
    check(streams.finish(120), "streams do not end")
    check(not streams.wrong, "; ".join(streams.wrong[:3]))
    check(wait_for(lambda: is_quiet(status(server.address)), 30), "the server keeps something of what has ended")
    check(wait_for(lambda: set(server.processes()) == children and len(server.children()) == len(children), 30),
          f"its processes are {server.processes()}")
    check(wait_for(lambda: all(now <= before[what] for what, now in holdings(server).items()), 30),
          f"the supervisor has {holdings(server)}, it had {before}")
    check(all(now <= held[which] + MOST_GROWTH for which, now in memory(server).items()),
          f"bytes in memory are {memory(server)}, they were {held}")
    print(f"  {streams.ended} streams ended, all with their tokens; sent again by the client: {streams.server_losses} times")
    return pauses


def run(arguments, ranks, scratch):
    server = Server(arguments.lorikeet, "--heartbeat-ms", str(int(1000 * BEAT)), "--max-loras", "3", "--threads", "1",
                    ranks=ranks, adapters=adapters_in(scratch))
    try:
        pauses = disturb(server, ranks, arguments.seed + ranks, arguments.faults, arguments.tokens, arguments.seconds)
        check(server.stop() == 0, "the server did not end in order")
        return pauses
    except Failed as failed:
        print(server.said.decode(errors="replace")[-4000:])
        raise failed
    finally:
        server.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lorikeet", default=str(ROOT / "build/release/bin/lorikeet"))
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 16))
    parser.add_argument("--faults", type=int, default=7, help="for each number of ranks")
    parser.add_argument("--ranks", default="1,2,4")
    parser.add_argument("--tokens", type=int, default=500, help="of each stream")
    parser.add_argument("--long", action="store_true")
    arguments = parser.parse_args()
    arguments.seconds = 600 if arguments.long else 60
    if arguments.long:
        arguments.faults = 1 << 30
    print(f"seed {arguments.seed}")
    all_pauses, failures = {}, 0
    for ranks in [int(number) for number in arguments.ranks.split(",")]:
        print(f"{ranks} ranks", flush=True)
        with tempfile.TemporaryDirectory(prefix="lorikeet-chaos-") as scratch:
            try:
                for kind, pauses in run(arguments, ranks, scratch).items():
                    all_pauses.setdefault(kind, []).extend(pauses)
            except (Failed, RuntimeError) as failed:
                failures += 1
                print(f"FAILED with {ranks} ranks, seed {arguments.seed}: {failed}")
    for kind, pauses in sorted(all_pauses.items()):
        print(f"{kind:26} {len(pauses):3} times, pause median {statistics.median(pauses):.2f} s, worst {max(pauses):.2f} s")
    print("failed" if failures else "passed")
    return 1 if failures else 0


if __name__ == "__main__":
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.exit(main())
