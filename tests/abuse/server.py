"""A `lorikeet serve` of the example model for abuse.py and chaos.py, and what can be seen of its processes from outside."""
import json
import os
import pathlib
import re
import resource
import signal
import subprocess
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "models"


def wait_for(condition, seconds=60):
    """Whether it came true. Polls: what is watched here has no event to wait for."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


class Failed(Exception):
    pass


def check(condition, sentence):
    if not condition:
        raise Failed(sentence)


def is_closed(connection):
    """Whether the other end has closed the connection; what it has sent is thrown away."""
    connection.setblocking(False)
    try:
        while connection.recv(65536):
            pass
        return True
    except BlockingIOError:
        return False
    except OSError:
        return True


def socket_inodes(pid):
    """The inodes, as text, of the sockets that a process has open."""
    inodes = set()
    for link in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(link))
        except OSError:
            continue
        if found:
            inodes.add(found.group(1))
    return inodes


def memory_of(pid):
    """Bytes that a process has in memory; 0 where there is none."""
    try:
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found.group(1)) * 1024 if found else 0


class Server:
    """Starts on a free port of the loopback. Leads a process group of its own."""

    def __init__(self, lorikeet, *flags, descriptors=None, ranks=2, adapters=None, full_disk=False, closed=()):
        """full_disk: what it says finds no room anywhere. closed: descriptors that it has none of when it begins."""
        adapters = adapters or {"moby": EXAMPLES / "adapters" / "moby"}
        self.scratch = tempfile.TemporaryDirectory(prefix="lorikeet-abuse-")
        self.out = pathlib.Path(self.scratch.name, "out")

        def before():
            if descriptors:
                resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
            for descriptor in closed:
                os.close(descriptor)

        read_end, write_end = os.pipe()
        if full_disk:
            os.close(write_end)
            write_end = os.open("/dev/full", os.O_WRONLY)
        with open(self.out, "wb") as out:
            self.process = subprocess.Popen(
                [lorikeet, "serve", "--model", EXAMPLES / "tiny-qwen2-gptq-int4", "--device", "cpu", "--tp", str(ranks),
                 "--lora-modules", *(f"{name}={path}" for name, path in adapters.items()), "--zmq", "tcp://127.0.0.1:0",
                 "--port", "0", *flags],
                stdin=subprocess.DEVNULL, stdout=out, stderr=write_end, start_new_session=True, preexec_fn=before)
        os.close(write_end)
        self.stderr = os.fdopen(read_end, "rb", buffering=0)
        self.pieces = []
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()
        if not wait_for(lambda: "serving " in self.out.read_text() or self.process.poll() is not None, 120):
            raise RuntimeError("the server does not start")
        address = re.search(r"tcp://\S+", self.out.read_text())
        if address is None:
            raise RuntimeError(f"the server has ended: {self.said.decode(errors='replace')}")
        self.address = address.group(0)
        self.port = int(self.address.rsplit(":", 1)[1])
        http = re.search(rb"OpenAI API at http://[^:]*:(\d+)", self.said)
        self.http_port = int(http.group(1)) if http else None

    def _listen(self):
        try:
            while piece := self.stderr.read(1 << 16):
                self.pieces.append(piece)
        except (OSError, ValueError):
            pass

    @property
    def said(self):
        """What came on its standard error."""
        return b"".join(self.pieces)

    def close_stderr(self):
        """As a terminal that is closed: what the server says from now on fails."""
        # The listener, which sleeps in read(), hears one more piece and finds the end.
        devnull = os.open(os.devnull, os.O_RDONLY)
        os.dup2(devnull, self.stderr.fileno())
        os.close(devnull)

    def sanitizer_report(self):
        """What a sanitizer that it was built with has found; empty: nothing."""
        found = re.search(rb"(ERROR: (Address|Leak)Sanitizer|runtime error:|WARNING: ThreadSanitizer)", self.said)
        return self.said[max(0, found.start() - 200):found.start() + 4000].decode(errors="replace") if found else ""

    def children(self):
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
            if parent == self.process.pid:
                found.append(int(entry.name))
        return found

    def processes(self):
        """Role ("head", "rank 0", ...) -> pid, of the children that are not dead yet."""
        found = {}
        for pid in self.children():
            try:
                words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode().split("\0")
            except OSError:
                continue
            if words[0] == "lorikeet" and len(words) > 1:
                found[" ".join(words[1:])] = pid
        return found

    def memory(self):
        """Bytes that the largest of its processes has in memory."""
        return max(memory_of(pid) for pid in [self.process.pid, *self.children()])

    def descriptors(self):
        """Of all its processes."""
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in [self.process.pid, *self.children()])

    def listening_ports(self):
        """The TCP ports of all its processes that others can connect to."""
        inodes = set().union(*(socket_inodes(pid) for pid in [self.process.pid, *self.children()]))
        ports = set()
        for table in ("tcp", "tcp6"):
            for line in pathlib.Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and fields[9] in inodes:
                    ports.add(int(fields[1].rsplit(":", 1)[1], 16))
        return ports

    def stop_group(self, number):
        """Signals all processes of its group, as a terminal does; its exit status."""
        os.killpg(self.process.pid, number)
        return self.process.wait(60)

    def stop(self, seconds=60):
        """Asks it to end; its exit status, None where it does not. What leak checks say is said then."""
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self.listener.join(5)
        return status

    def end(self):
        """Whatever happened, nothing of it is left."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        self.scratch.cleanup()


def status_of(client):
    client.status("abuse")
    for kind, message in client.events():
        if kind == "status":
            return json.loads(message["json"])
        if kind == "failure" and message["id"] == "abuse":
            raise RuntimeError(message["message"])
