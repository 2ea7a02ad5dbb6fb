#!/usr/bin/python3
"""Kills, stops and cuts off the processes of a running server while streams run, and holds every stream to its tokens.

    tests/chaos/chaos.py [--lorikeet build/release/bin/lorikeet] [--seed N] [--faults N] [--ranks 1,2,4] [--long]

Ten streams (the base and four adapters, greedy and drawn) run all the time on CPU ranks; each must end with the tokens
that it has undisturbed, each of them once. Only the head's death may end streams, which are then sent again. Afterwards
blocks, leases, claims, descriptors, threads, memory and processes must be back to where they were. The faults and their
order follow from the seed, which is printed. The server of one rank speaks to a full disk. --long: half an hour; first
every process in every state, and an adapter whose disk hangs. --lorikeet takes any build; of one with a sanitizer, which
keeps what was freed, say so (--lorikeet build/asan/bin/lorikeet --sanitized): memory is not compared then. Needs pyzmq, for
Debian's python3.
"""
import argparse
import os
import pathlib
import random
import shutil
import statistics
import sys
import tempfile
import time

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS / "abuse"))
from server import ROOT, Failed, Server, check, memory_of, status_of, wait_for  # noqa: E402

from disks import HungFile, touch  # noqa: E402
from faults import PATIENCE, Faults  # noqa: E402
from states import States, pairs  # noqa: E402
from streams import Client, ServerLost, Streams, adapters_in, requests, undisturbed  # noqa: E402

BEAT = 0.5  # seconds between heartbeats; ten are waited for
MOST_GROWTH = 32 << 20  # bytes that supervisor and head may hold after the faults above what they held before


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
    """What the supervisor, which lives through everything, has open; and the memory of ranks that it holds, in bytes."""
    of = pathlib.Path(f"/proc/{server.process.pid}")
    descriptors = list((of / "fd").iterdir())
    held = [os.stat(one).st_size for one in descriptors if os.path.islink(one) and os.readlink(one).startswith("/memfd:")]
    return {"descriptors": len(descriptors), "threads": len(list((of / "task").iterdir())), "regions": len(held),
            "bytes of regions": sum(held)}


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
    check(wait_for(has_come, PATIENCE), f"no group serves after that of epoch {epoch}")


def told_of(state, epoch):
    """What the server says its pauses since then were spent on, in seconds."""
    parts = ("detect", "fence", "start", "join", "first_token", "again")
    pauses = [pause for pause in state["last_pauses"] if pause["epoch"] >= epoch]
    return ", ".join(f"{part} {sum(pause[part + '_us'] for pause in pauses) / 1e6:.2f}" for part in parts) if pauses else "none"


def recover(streams, when, patience):
    """Waits until streams have gone on for a while after what happened at `when`."""
    check(wait_for(lambda: streams.tokens_since(when) > 40, patience), f"no stream goes on within {patience} s")


# Kinds of faults that a group lives through, or may.
LIVED_THROUGH = ("pause a rank", "pause the head", "pause rank, serving", "pause head, serving")


class Disturbance:
    """Streams of a server, and what is done to its processes meanwhile."""

    def __init__(self, server, ranks, seed, tokens, sanitized=False):
        self.server, self.ranks, self.sanitized = server, ranks, sanitized
        wanted = requests(tokens)
        expected = undisturbed(server.address, wanted)
        self.first = {rank["pid"] for rank in status(server.address)["ranks"]}  # the processes that read the checkpoint
        self.before, self.held, self.children = holdings(server), memory(server), set(server.processes())
        self.faults, self.chance = Faults(server, ranks, seed, BEAT), random.Random(seed)
        self.pauses, self.count = {}, 0  # seconds, by kind of fault
        self.streams = Streams(server.address, wanted, expected)
        recover(self.streams, time.monotonic(), PATIENCE)

    def do(self, kind, fault):
        time.sleep(self.chance.uniform(0, 0.3))
        state = status(self.server.address)
        hit = f"epoch {state['epoch']}, {state['engine']['running']} run, {state['adapter_transfers']} adapters on their way"
        self.streams.begin_pause()
        when = time.monotonic()
        what = fault()
        if kind not in (*LIVED_THROUGH, "cut a socket"):
            wait_for_another_group(self.server, state["epoch"])
        recover(self.streams, time.monotonic(), PATIENCE)
        # It may be one that is missed late, or never.
        if kind == "cut a socket":
            time.sleep(1.5 * self.faults.bound)
            recover(self.streams, time.monotonic(), PATIENCE)
        pause = self.streams.longest_gap(when)
        self.pauses.setdefault(kind, []).append(pause)
        self.count += 1
        told = told_of(status(self.server.address), state["epoch"])
        print(f"  {self.count:3}  {pause:6.2f} s  {what} ({hit}); the server says: {told}", flush=True)
        check(not self.streams.wrong, f"{what}: " + "; ".join(self.streams.wrong[:3]))

    def draw(self):
        kind = self.faults.draw()
        self.do(kind, self.faults.kinds()[kind][1])

    def hit_every_state(self, end):
        """What of it there was no time for, is a failure."""
        states, every = States(self.faults), pairs(self.ranks)
        self.chance.shuffle(every)
        for number, (action, process, state) in enumerate(every):
            check(time.monotonic() < end, f"there was time for {number} of {len(every)} states")
            self.do(f"{action} {process}, {state}", lambda: states.hit(action, process, state))
        print(f"  every one of {len(every)} (process, state, what is done to it) was hit", flush=True)

    def hang_a_disk(self, adapter):
        """The adapter's requests wait or fail; nobody else notices."""
        touch(adapter / "adapter_config.json")
        client = Client(self.server.address)
        self.streams.begin_pause()
        when = time.monotonic()
        with HungFile(adapter / "adapter_config.json"):
            client.generate("hung", prompt="To be", adapter="hung", max_tokens=4)
            def is_read():
                return any((a["name"], a["host"]) == ("hung", "reading") for a in status(self.server.address)["adapters"])
            check(wait_for(is_read, 10), "the adapter whose disk hangs is not being read")
            time.sleep(2)
            recover(self.streams, time.monotonic(), 10)
        pause = self.streams.longest_gap(when)
        kind, message = next((kind, message) for kind, message in client.events() if kind in ("done", "failure"))
        client.close()
        check(kind == "done", f"once its disk answers again, an adapter's request ends with {message}")
        self.pauses.setdefault("hang a disk", []).append(pause)
        print(f"       {pause:6.2f} s  an adapter's disk did not answer for 2 s", flush=True)

    def finish(self):
        check(self.streams.finish(120), "streams do not end")
        check(not self.streams.wrong, "; ".join(self.streams.wrong[:3]))
        server = self.server
        check(wait_for(lambda: is_quiet(status(server.address)), 30), "the server keeps something of what has ended")
        check(wait_for(lambda: set(server.processes()) == self.children and len(server.children()) == len(self.children), 30),
              f"its processes are {server.processes()}")
        check(wait_for(lambda: all(now <= self.before[what] for what, now in holdings(server).items()), 30),
              f"the supervisor has {holdings(server)}, it had {self.before}")
        check(self.sanitized or all(now <= self.held[which] + MOST_GROWTH for which, now in memory(server).items()),
              f"bytes in memory are {memory(server)}, they were {self.held}")
        print(f"  {self.streams.ended} streams ended, all with their tokens; sent again by the client: "
              f"{self.streams.server_losses} times", flush=True)


def disturb(server, ranks, arguments, hung):
    """Pauses in seconds, by kind of fault."""
    end = time.monotonic() + arguments.seconds
    disturbed = Disturbance(server, ranks, arguments.seed + ranks, arguments.tokens, arguments.sanitized)
    if arguments.long:
        disturbed.hang_a_disk(hung)
        disturbed.hit_every_state(end)
    for _ in range(arguments.faults):
        if time.monotonic() > end and disturbed.count > 0:
            break
        disturbed.draw()
    check(disturbed.count > 0 or arguments.faults == 0, "nothing was done to the server")
    # Whoever was killed has taken over what it had left, so that nobody has read weights a second time.
    ends = status(server.address)
    check(all(rank["weight_bytes_read"] == 0 or rank["pid"] in disturbed.first for rank in ends["ranks"]),
          f"weights were read from disk again: {ends['ranks']}")
    print(f"  positions computed again: {ends['engine']['recomputed_tokens']}", flush=True)
    disturbed.finish()
    return disturbed.pauses


def run(arguments, ranks, scratch):
    adapters = adapters_in(scratch)
    adapters["hung"] = pathlib.Path(scratch, "hung")
    shutil.copytree(adapters["moby"], adapters["hung"])
    server = Server(arguments.lorikeet, "--heartbeat-ms", str(int(1000 * BEAT)), "--max-loras", "3", "--threads", "1",
                    ranks=ranks, adapters=adapters, full_disk=ranks == 1)
    try:
        pauses = disturb(server, ranks, arguments, adapters["hung"])
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
    parser.add_argument("--sanitized", action="store_true", help="the binary has a sanitizer")
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
