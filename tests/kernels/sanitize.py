#!/usr/bin/env python3
"""Runs every test of the CUDA kernels under compute-sanitizer, a slice of time at a call.

  tests/kernels/sanitize.py memcheck|racecheck|synccheck|initcheck BINARIES STATE [--seconds 540] [--jobs 6]
                            [--together 4] [--only TEXT]

BINARIES is the folder of the test executables. STATE is a file of one line for each test that has ended; a call goes on
where the one before it stopped, and does not repeat what passed, as long as the executable is the same (by its bytes) and
the tool too. It may be carried from machine to machine. Several tests of an executable share a process, as the tool takes
seconds to begin; where one of them fails, or all of a slice is too short for them, each runs alone. A test that takes more
than a slice alone is named and counts as failed. Kernels of libraries are not checked: what cuBLAS does in shared memory is its own affair. Nor are tests run by
racecheck whose kernels wait for each other, as it lets one kernel run at a time: PeersInTurn and DrawsOfALoneRank run the
same kernels on what lies there beforehand. Ends with 0 when all have passed, 1 where
one has failed, 2 where time has run out first: call again.
"""
import argparse
import hashlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

KERNEL_TESTS = ("*_cuda_test", "lora_slots_test")
OF_MODELS = ("cuda_",)  # these run whole models, of the same kernels
OF_LIBRARIES = "kns=nvjet"  # cuBLASLt's, in racecheck's words for a part of a kernel's name
NO_DEVICE = "terminated before first instrumented API call"  # what the tool says of tests that compute nothing
WAIT_FOR_EACH_OTHER = ("DrawsOverPeers.", "TwoShotNorm.")


def kernel_tests(binaries):
    found = {path for pattern in KERNEL_TESTS for path in binaries.glob(pattern)}
    return sorted(path for path in found if not path.name.startswith(OF_MODELS))


def names_of(binary):
    """Suite.Test of an executable, as --gtest_list_tests prints them."""
    listed = subprocess.run([binary, "--gtest_list_tests"], capture_output=True, text=True, check=True).stdout
    suite = ""
    for line in listed.splitlines():
        name = line.split("#")[0].rstrip()
        if name.endswith(".") and not name.startswith(" "):
            suite = name
        elif name.startswith("  "):
            yield suite + name.strip()


def digest_of(binary):
    return hashlib.sha256(binary.read_bytes()).hexdigest()[:16]


class State:
    """Lines `TOOL DIGEST EXECUTABLE TEST ended|skipped|late|alone SECONDS STATUS`; the last one of a test holds. alone:
    nothing is known but that it must run alone."""

    def __init__(self, path):
        self.path = path
        self.lock = threading.Lock()
        self.last = {}
        if path.exists():
            for line in path.read_text().splitlines():
                words = line.split()
                if len(words) == 7:  # a line that was cut off is as none
                    self.last[tuple(words[:4])] = words[4:]

    def add(self, key, kind, seconds, status):
        with self.lock:
            self.last[key] = [kind, f"{seconds:.0f}", str(status)]
            with self.path.open("a") as file:
                print(*key, *self.last[key], file=file)

    def is_kind(self, key, kind, status="0"):
        return key in self.last and self.last[key][0] == kind and self.last[key][2] == status

    def done(self, key):  # a test that the device at hand cannot run says so
        return self.is_kind(key, "ended") or self.is_kind(key, "skipped")

    def failed(self, key):
        return key in self.last and not self.done(key) and not self.is_alone(key)

    def is_alone(self, key):
        return key in self.last and self.last[key][0] == "alone"


class Slice:
    def __init__(self, arguments, state):
        self.arguments = arguments
        self.state = state
        self.begin = time.monotonic()
        self.waiting = []
        self.lock = threading.Lock()

    def left(self):
        return self.arguments.seconds - (time.monotonic() - self.begin)

    def may_share(self, key):
        return not self.state.failed(key) and not self.state.is_alone(key)

    def take(self):
        """The next tests for one process."""
        with self.lock:
            if not self.waiting or self.left() <= 0:
                return None, []
            binary, key = self.waiting.pop(0)
            keys = [key]
            while (len(keys) < self.arguments.together and self.may_share(key) and self.waiting
                   and self.waiting[0][0] == binary and self.may_share(self.waiting[0][1])):
                keys.append(self.waiting.pop(0)[1])
            return binary, keys

    def run(self, binary, keys, begins_with_slice):
        began = time.monotonic()
        share = len(keys) > 1
        command = ["compute-sanitizer", "--tool", self.arguments.tool, "--error-exitcode", "9",
                   "--kernel-name-exclude", OF_LIBRARIES, str(binary), f"--gtest_brief={0 if share else 1}",
                   "--gtest_filter=" + ":".join(key[3] for key in keys)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                   errors="replace", start_new_session=True)
        try:
            text, _ = process.communicate(timeout=max(0, self.left()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the tool is not the process that computes
            process.communicate()
            if begins_with_slice:  # they had all the time that there is
                for key in keys:
                    self.state.add(key, "alone" if share else "late", time.monotonic() - began, "-")
            return
        seconds = time.monotonic() - began
        of_host = NO_DEVICE in text and "[  PASSED  ]" in text
        status = 0 if of_host else process.returncode
        summary = " ".join(line.strip("= ") for line in text.splitlines() if "SUMMARY" in line)
        if share and status != 0:  # whose fault it is shows when each runs alone
            print(f"{binary.name}: {len(keys)} tests together ended with {status}, {seconds:.0f} s {summary}",
                  flush=True)
            for key in keys:
                self.state.add(key, "alone", seconds, status)
            with self.lock:
                self.waiting[:0] = [(binary, key) for key in keys]
            return
        for key in keys:
            skipped = status == 0 and (of_host or "SKIPPED" in text)
            if share:  # each is named with its own time
                named = re.search(rf"^\[ +(OK|SKIPPED) +\] {re.escape(key[3])} \((\d+) ms\)$", text, re.MULTILINE)
                if named is None:
                    self.state.add(key, "alone", seconds, status)
                    continue
                skipped, seconds = of_host or named[1] == "SKIPPED", int(named[2]) / 1000
            kind = "skipped" if skipped else "ended"
            self.state.add(key, kind, seconds, status)
            print(f"{key[2]} {key[3]}: {kind} with {status}, {seconds:.0f} s {summary}", flush=True)
        if status != 0:
            print("\n".join(text.splitlines()[-30:]), flush=True)

    def work(self):
        begins_with_slice = True
        while True:
            binary, keys = self.take()
            if not keys:
                return
            self.run(binary, keys, begins_with_slice)
            begins_with_slice = False


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", choices=["memcheck", "racecheck", "synccheck", "initcheck"])
    parser.add_argument("binaries", type=pathlib.Path)
    parser.add_argument("state", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=540)
    parser.add_argument("--jobs", type=int, default=6, help="processes at a time: each uses little of the GPU")
    parser.add_argument("--together", type=int, default=4, help="tests of one process")
    parser.add_argument("--only", default="", help="tests whose executable or name has this in it")
    arguments = parser.parse_args()
    state = State(arguments.state)
    tests = []
    for binary in kernel_tests(arguments.binaries):
        digest = digest_of(binary)
        tests += [(binary, (arguments.tool, digest, binary.name, name)) for name in names_of(binary)
                  if arguments.only in f"{binary.name} {name}"
                  and not (arguments.tool == "racecheck" and name.startswith(WAIT_FOR_EACH_OTHER))]
    if not tests:
        print(f"no test of the kernels in {arguments.binaries}", file=sys.stderr)
        return 1
    part = Slice(arguments, state)
    # Those that were late come first: alone in their slices they have the most time.
    part.waiting = sorted((test for test in tests if not state.done(test[1])),
                          key=lambda test: not state.failed(test[1]))
    workers = [threading.Thread(target=part.work) for _ in range(arguments.jobs)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    passed = sum(state.is_kind(key, "ended") for _, key in tests)
    skipped = sum(state.is_kind(key, "skipped") for _, key in tests)
    failed = [key for _, key in tests if state.failed(key)]
    print(f"{arguments.tool}: {passed} of {len(tests)} tests have passed, {skipped} skipped, {len(failed)} failed")
    for key in failed:
        kind, seconds, status = state.last[key]
        print(f"  {key[2]} {key[3]}: " + (f"not done after {seconds} s" if kind == "late" else f"ended with {status}"))
    return 1 if failed else 0 if passed + skipped == len(tests) else 2


if __name__ == "__main__":
    sys.exit(main())
