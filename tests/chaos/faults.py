"""What is done to the processes of a running server: signals and broken sockets, from outside."""
import ctypes
import os
import pathlib
import random
import signal
import socket
import time

PIDFD_GETFD = 438  # the system call's number
# Seconds within which what must happen happens. Who has lost ranks again and again starts them half a minute later
# (actors/supervisor/restart_pacer.h), and one that is stopped then is missed after twenty seconds more.
PATIENCE = 120


def send(pid, number):
    try:
        os.kill(pid, number)
    except (ProcessLookupError, TypeError):
        pass


class Faults:
    """Draws faults of a server from a seed; each method does one and says what it hit."""

    def __init__(self, server, ranks, seed, beat):
        self.server, self.ranks, self.random = server, ranks, random.Random(seed)
        self.bound = 10 * beat  # seconds after which who is silent is taken for lost

    def kinds(self):
        """Name -> (how often among others, method)."""
        kinds = {"kill a rank": (5, self.kill_rank), "kill all ranks": (1, self.kill_all),
                 "kill a rank that starts": (2, self.kill_starting), "kill a rank that loads": (2, self.kill_loading),
                 "kill a rank that joins": (2, self.kill_joining), "pause a rank": (2, self.pause_rank),
                 "stop a rank": (1, self.stop_rank), "stop a rank that starts": (1, self.stop_starting),
                 "pause the head": (1, self.pause_head), "stop the head": (1, self.stop_head),
                 "kill the head": (1, self.kill_head), "kill head and rank": (1, self.kill_head_and_rank),
                 "cut a socket": (2, self.cut_socket)}
        if self.ranks > 1:
            kinds["kill two ranks"] = (2, self.kill_two)
        return kinds

    def draw(self):
        kinds = self.kinds()
        return self.random.choices(list(kinds), [weight for weight, _ in kinds.values()])[0]

    def ranks_now(self):
        return {name: pid for name, pid in self.server.processes().items() if name.startswith("rank ")}

    def pick(self):
        return f"rank {self.random.randrange(self.ranks)}"

    def _kill(self, *names):
        processes = self.server.processes()
        for name in names:
            send(processes.get(name), signal.SIGKILL)
        return "killed " + " and ".join(names)

    def kill_rank(self):
        return self._kill(self.pick())

    def two(self):
        return [f"rank {rank}" for rank in self.random.sample(range(self.ranks), 2)]

    def kill_two(self):
        return self._kill(*self.two())

    def kill_all(self):
        return self._kill(*(f"rank {rank}" for rank in range(self.ranks)))

    def successor(self, name):
        """Kills the rank and waits for the next process of its name."""
        before = self.server.processes().get(name)
        send(before, signal.SIGKILL)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            pid = self.server.processes().get(name)
            if pid not in (None, before):
                return pid
            time.sleep(0.001)
        raise RuntimeError(f"{name} was killed and has no successor")

    def _kill_successor(self, least, most):
        name, delay = self.pick(), self.random.uniform(least, most)
        pid = self.successor(name)
        time.sleep(delay)
        send(pid, signal.SIGKILL)
        return f"killed {name}, and its successor {1000 * delay:.0f} ms later"

    def kill_starting(self):
        return self._kill_successor(0, 0.01)

    def kill_loading(self):
        return self._kill_successor(0.02, 0.1)

    def kill_joining(self):
        return self._kill_successor(0.1, 0.3)

    def _pause(self, name, seconds):
        pid = self.server.processes().get(name)
        send(pid, signal.SIGSTOP)
        time.sleep(seconds)
        send(pid, signal.SIGCONT)
        return f"stopped {name} for {seconds:.1f} s"

    def pause_rank(self):
        return self._pause(self.pick(), self.random.uniform(0.2, self.bound / 3))

    def pause_head(self):
        return self._pause("head", self.random.uniform(0.2, self.bound / 3))

    def stop_rank(self):
        name = self.pick()
        send(self.server.processes().get(name), signal.SIGSTOP)
        return f"stopped {name} for good"

    def stop_starting(self):
        name, delay = self.pick(), self.random.uniform(0, 0.1)
        pid = self.successor(name)
        time.sleep(delay)
        send(pid, signal.SIGSTOP)
        return f"killed {name}, and stopped its successor {1000 * delay:.0f} ms later"

    def stop_head(self):
        send(self.server.processes().get("head"), signal.SIGSTOP)
        return "stopped the head for good"

    def kill_head(self):
        return self._kill("head")

    def kill_head_and_rank(self):
        return self._kill("head", self.pick())

    def cut_socket(self):
        """Shuts one of a rank's sockets down: of the head, of a peer, or of the supervisor."""
        name = self.pick()
        pid = self.server.processes().get(name)
        sockets = []
        try:
            for link in pathlib.Path(f"/proc/{pid}/fd").iterdir():
                if os.readlink(link).startswith("socket:"):
                    sockets.append(int(link.name))
            number = self.random.choice(sorted(sockets))
            pidfd = os.pidfd_open(pid)
        except (OSError, IndexError):
            return f"{name} was not there to be cut off"
        copy = ctypes.CDLL(None, use_errno=True).syscall(PIDFD_GETFD, pidfd, number, 0)
        os.close(pidfd)
        if copy < 0:
            return self._kill(name) + " (its sockets are not to be had)"
        cut = socket.socket(fileno=copy)
        try:
            cut.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # one that listens or is not connected
        cut.close()
        return f"cut descriptor {number} of {name}"
