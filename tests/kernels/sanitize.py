#!/usr/bin/env python3
"""Runs every test of the CUDA kernels under compute-sanitizer, a slice of time at a call.

  tests/kernels/sanitize.py TOOL[,TOOL...] BINARIES STATE [--seconds 540] [--jobs 14] [--together 8] [--only TEXT]

TOOL is memcheck, racecheck, synccheck or initcheck; the work of several is mixed. BINARIES is the folder of the test
executables. STATE is a file of one line for each test that has ended; a call goes on where the one before it stopped, and
does not repeat what passed, as long as the executable is the same (by its bytes) and the tool too. It may be carried from
machine to machine. What a test took, of whatever executable, says what comes first: the longest. Tests take few sizes
(tests/kernels/base/test_sizes.h), by which every kernel is entered.

Several tests of an executable share a process, as the tool takes seconds to begin; where one of them fails, or all of a
slice is too short for them, each runs alone. Under the multi-process service (tests/gpu.sh) the kernels of all processes
run beside each other, in a tenth of the time; as an error on the device then ends all of them, what failed runs again
outside of it, and what it says there counts. A test that takes more than a slice alone is named and counts as failed.
Kernels of libraries are not checked for races: what cuBLAS does in shared memory is its own affair. Nor are tests run by
racecheck whose kernels wait for each other, as it lets one kernel run at a time: PeersInTurn and DrawsOfALoneRank run the
same kernels on what lies there beforehand. Ends with 0 when all have passed, 1 where one has failed, 2 where time has run out first:
call again.
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
KERNELS_OF_LIBRARIES = "kns=nvjet"  # cuBLASLt's, in racecheck's words for a part of a kernel's name
NO_DEVICE = "terminated before first instrumented API call"  # what the tool says of tests that compute nothing
WAIT_FOR_EACH_OTHER = ("DrawsOverPeers.", "TwoShotNorm.")
OF_LIBRARIES = ("DenseGemmCuda.LibraryGemm", "FloorsOfADevice.", "Int4WarpPrefillCuda.LeavesMoreRowsToTheLibrary")
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
SERVICE = "CUDA_MPS_PIPE_DIRECTORY"
LONG = 6.0  # seconds of the tests that share a process


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
    """Lines `TOOL DIGEST EXECUTABLE TEST ended|skipped|late|alone|cut SECONDS STATUS`; the last one of a test holds. alone:
    nothing is known but that it must run alone; cut: but that it takes so long, or longer."""

    def __init__(self, path):
        self.path = path
        self.lock = threading.Lock()
        self.last = {}
        self.cost = {}  # by tool, executable's name and test: seconds when it last ran, of whatever executable
        if path.exists():
            for line in path.read_text().splitlines():
                words = line.split()
                if len(words) == 7:  # a line that was cut off is as none
                    self.note(tuple(words[:4]), words[4:])

    def note(self, key, words):
        self.last[key] = words
        if words[0] != "alone":
            self.cost[(key[0], *key[2:])] = float(words[1])

    def cost_of(self, key, unknown):
        return self.cost.get((key[0], *key[2:]), unknown)

    def add(self, key, kind, seconds, status):
        with self.lock:
            self.note(key, [kind, f"{seconds:.1f}", str(status)])
            with self.path.open("a") as file:
                print(*key, *self.last[key], file=file)

    def is_kind(self, key, kind, status="0"):
        return key in self.last and self.last[key][0] == kind and self.last[key][2] == status

    def done(self, key):  # a test that the device at hand cannot run says so
        return self.is_kind(key, "ended") or self.is_kind(key, "skipped")

    def failed(self, key):
        return key in self.last and self.last[key][0] in ("ended", "late") and not self.done(key)

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

    def arrange(self, tests):
        """What each process is to run, the longest first: of an executable and tool, as many tests as take LONG together.
        Those that were late come first of all: alone in their slices they have the most time."""
        unknown = LONG / self.arguments.together
        groups = []
        open_groups = {}
        for binary, key in sorted(tests, key=lambda test: -self.state.cost_of(test[1], unknown)):
            cost = self.state.cost_of(key, unknown)
            if not self.may_share(key) or cost >= LONG:
                groups.append([not self.state.failed(key), -cost, binary, [key]])
                continue
            kind = (key[:3], key[3].startswith(WAIT_FOR_EACH_OTHER))
            group = open_groups.get(kind)
            if group is None or len(group[3]) == self.arguments.together or cost - group[1] > LONG:
                group = open_groups[kind] = [True, 0.0, binary, []]
                groups.append(group)
            group[1] -= cost
            group[3].append(key)
        groups.sort(key=lambda group: group[:2])
        self.waiting = [(binary, keys) for _, _, binary, keys in groups]

    def take(self):
        """The next tests for one process."""
        with self.lock:
            if not self.waiting or self.left() <= 0:
                return None, []
            return self.waiting.pop(0)

    def note_cut(self, keys, text, seconds, begins_with_slice):
        """Of tests whose process was ended: what each took, so that the next slice knows. What the tool would have said of
        them is not known."""
        for position, key in enumerate(keys):
            if named := self.line_of(key, text):
                self.state.add(key, "cut", int(named[2]) / 1000, "-")
                seconds -= int(named[2]) / 1000
                continue
            whole = begins_with_slice and position == 0  # it had all the time that there is
            self.state.add(key, "cut" if not whole else "late" if len(keys) == 1 else "alone", seconds, "-")
            return

    @staticmethod
    def line_of(key, text):
        return re.search(rf"^\[ +(OK|SKIPPED) +\] {re.escape(key[3])} \((\d+) ms\)$", text, re.MULTILINE)

    def run(self, binary, keys, begins_with_slice):
        began = time.monotonic()
        share = len(keys) > 1
        command = ["compute-sanitizer", "--tool", keys[0][0], "--error-exitcode", "9",
                   "--kernel-name-exclude", KERNELS_OF_LIBRARIES, str(binary), f"--gtest_brief={0 if share else 1}",
                   "--gtest_filter=" + ":".join(key[3] for key in keys)]
        environment = {**os.environ, "LORIKEET_SANITIZER_SIZES": "1"}
        if not keys[0][3].startswith(WAIT_FOR_EACH_OTHER):
            environment["CUDA_MODULE_LOADING"] = "LAZY"  # the tool patches all kernels that are loaded
        if not self.may_share(keys[0]):
            environment.pop(SERVICE, None)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                   errors="replace", start_new_session=True, env=environment)
        try:
            text, _ = process.communicate(timeout=max(0, self.left()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the tool is not the process that computes
            text, _ = process.communicate()
            self.note_cut(keys, text, time.monotonic() - began, begins_with_slice)
            return
        seconds = time.monotonic() - began
        of_host = NO_DEVICE in text and "[  PASSED  ]" in text
        status = 0 if of_host else process.returncode
        summary = " ".join(line.strip("= ") for line in text.splitlines() if "SUMMARY" in line)
        if status != 0 and (share or SERVICE in environment):  # whose fault it is shows when each runs alone
            print(f"{keys[0][0]} {binary.name}: {len(keys)} tests together ended with {status}, {seconds:.1f} s {summary}",
                  flush=True)
            for key in keys:
                self.state.add(key, "alone", seconds, status)
            with self.lock:
                self.waiting[:0] = [(binary, [key]) for key in keys]
            return
        if share:
            print(f"{keys[0][0]} {binary.name}: {len(keys)} tests together, {seconds:.1f} s {summary}", flush=True)
        for key in keys:
            skipped = status == 0 and (of_host or "SKIPPED" in text)
            if share:  # each is named with its own time
                named = self.line_of(key, text)
                if named is None:
                    self.state.add(key, "alone", seconds, status)
                    continue
                skipped, seconds = of_host or named[1] == "SKIPPED", int(named[2]) / 1000
            kind = "skipped" if skipped else "ended"
            self.state.add(key, kind, seconds, status)
            print(f"{key[0]} {key[2]} {key[3]}: {kind} with {status}, {seconds:.1f} s{'' if share else ' ' + summary}",
                  flush=True)
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
    parser.add_argument("tools", type=lambda text: text.split(","))
    parser.add_argument("binaries", type=pathlib.Path)
    parser.add_argument("state", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=540)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time: each uses little of the GPU")
    parser.add_argument("--together", type=int, default=8, help="tests of one process, at most")
    parser.add_argument("--only", default="", help="tests whose executable or name has this in it")
    arguments = parser.parse_args()
    if unknown := set(arguments.tools) - set(TOOLS):
        parser.error(f"no tool {', '.join(sorted(unknown))}: {', '.join(TOOLS)}")
    state = State(arguments.state)
    tests = []
    for binary in kernel_tests(arguments.binaries):
        digest = digest_of(binary)
        tests += [(binary, (tool, digest, binary.name, name)) for name in names_of(binary) for tool in arguments.tools
                  if arguments.only in f"{binary.name} {name}"
                  and not (tool == "racecheck" and name.startswith(WAIT_FOR_EACH_OTHER + OF_LIBRARIES))]
    if not tests:
        print(f"no test of the kernels in {arguments.binaries}", file=sys.stderr)
        return 1
    part = Slice(arguments, state)
    part.arrange([test for test in tests if not state.done(test[1])])
    workers = [threading.Thread(target=part.work) for _ in range(arguments.jobs)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    passed, skipped, failed = 0, 0, []
    for tool in arguments.tools:
        keys = [key for _, key in tests if key[0] == tool]
        of_tool = [sum(state.is_kind(key, kind) for key in keys) for kind in ("ended", "skipped")]
        lost = [key for key in keys if state.failed(key)]
        print(f"{tool}: {of_tool[0]} of {len(keys)} tests have passed, {of_tool[1]} skipped, {len(lost)} failed")
        passed, skipped, failed = passed + of_tool[0], skipped + of_tool[1], failed + lost
    for key in failed:
        kind, seconds, status = state.last[key]
        print(f"  {key[0]} {key[2]} {key[3]}: " +
              (f"not done after {seconds} s" if kind == "late" else f"ended with {status}"))
    return 1 if failed else 0 if passed + skipped == len(tests) else 2


if __name__ == "__main__":
    sys.exit(main())
