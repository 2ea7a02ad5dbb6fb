"""States in which processes of a server are hit, each reached and recognised from outside: by pids, threads and what a
process has mapped. actors/supervisor/rank_life.h and supervision.h draw them."""
import pathlib
import signal
import time

from faults import PATIENCE, send

ACTIONS = ("kill", "stop", "pause")
OF_ONE_RANK = {"rank": ("starting", "loading", "joining", "serving"), "head": ("starting", "forming", "losing", "serving")}
OF_SURVIVORS = {"survivor": ("leaving", "joining")}
WEIGHTS = "memfd:lorikeet-weights"  # what a rank has mapped once its weights are there


def pairs(ranks):
    """All (action, process, state)."""
    processes = {**OF_ONE_RANK, **(OF_SURVIVORS if ranks > 1 else {})}
    return [(action, process, state) for action in ACTIONS for process, states in processes.items() for state in states]


def _until(condition, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise RuntimeError(f"the state was not reached in {seconds} s")
        time.sleep(0.001)


def _has_threads(pid):
    try:
        return len(list(pathlib.Path(f"/proc/{pid}/task").iterdir())) > 1
    except OSError:
        return True  # it is gone, and will not come to it


def has_its_weights(pid):
    try:
        return WEIGHTS in pathlib.Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return True


class States:
    """Brings a process into a state, and does something to it there."""

    def __init__(self, faults):
        self.faults = faults

    def hit(self, action, process, state):
        """Says what was done."""
        pid, name = getattr(self, f"_{process}_{state}")()
        if action == "kill":
            send(pid, signal.SIGKILL)
        else:
            send(pid, signal.SIGSTOP)
        if action == "pause":
            time.sleep(self.faults.random.uniform(0.2, self.faults.bound / 3))
            send(pid, signal.SIGCONT)
        done = {"kill": "killed", "stop": "stopped", "pause": "paused"}[action]
        return f"{done} {name} ({process}, {state})"

    def _pid(self, name):
        return self.faults.server.processes().get(name)

    # ---- a rank that takes the place of one that was killed

    def _rank_starting(self):
        name = self.faults.pick()
        return self.faults.successor(name), name

    def _rank_loading(self):
        pid, name = self._rank_starting()
        _until(lambda: _has_threads(pid))
        return pid, name

    def _rank_joining(self):
        pid, name = self._rank_starting()
        _until(lambda: has_its_weights(pid))
        return pid, name

    def _rank_serving(self):
        name = self.faults.pick()
        return self._pid(name), name

    # ---- a rank whose peer was killed

    def _survivor_leaving(self):
        dead, survivor = self.faults.two()
        pid = self._pid(survivor)
        send(self._pid(dead), signal.SIGKILL)
        return pid, survivor

    def _survivor_joining(self):
        dead, survivor = self.faults.two()
        pid = self._pid(survivor)
        successor = self.faults.successor(dead)
        _until(lambda: has_its_weights(successor))
        return pid, survivor

    # ---- the head

    def _head_starting(self):
        return self.faults.successor("head"), "head"

    def _head_forming(self):
        before = self._pid("rank 0")
        pid = self.faults.successor("head")
        _until(lambda: self._pid("rank 0") not in (None, before))
        return pid, "head"

    def _head_losing(self):
        pid = self._pid("head")
        send(self._pid(self.faults.pick()), signal.SIGKILL)
        return pid, "head"

    def _head_serving(self):
        return self._pid("head"), "head"
