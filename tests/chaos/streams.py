"""Streams that run while things die: each is held to the tokens that it has undisturbed."""
import pathlib
import shutil
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "examples" / "clients"))
from lorikeet_client import Client, ServerLost  # noqa: E402

ADAPTERS = ROOT / "examples" / "models" / "adapters"
PROMPTS = {None: "Call me", "kjv": "And it came to pass", "moby": "The whale", "shakespeare": "To be",
           "strong": "In the beginning"}


def adapters_in(scratch):
    """Four of them: the example's, and one of theirs that is scaled otherwise."""
    found = {name: ADAPTERS / name for name in ("kjv", "moby", "shakespeare")}
    strong = pathlib.Path(scratch, "strong")
    shutil.copytree(ADAPTERS / "kjv", strong)
    config = strong / "adapter_config.json"
    text = config.read_text()
    assert '"lora_alpha": 16' in text
    config.write_text(text.replace('"lora_alpha": 16', '"lora_alpha": 24'))
    return {**found, "strong": strong}


def requests(tokens):
    """By name: of the base and of each adapter, greedy and drawn."""
    made = {}
    for adapter, prompt in PROMPTS.items():
        plain = dict(prompt=prompt, max_tokens=tokens, ignore_eos=True, temperature=0)
        if adapter:
            plain["adapter"] = adapter
        made[f"{adapter or 'base'} greedy"] = plain
        made[f"{adapter or 'base'} drawn"] = {**plain, "temperature": 1, "seed": 7, "presence_penalty": 0.5}
    return made


def undisturbed(address, wanted, seconds=120):
    """Name -> token ids of every request, on a server that nobody troubles."""
    client = Client(address)
    for name, fields in wanted.items():
        client.generate(name, **fields)
    tokens, ended, end = {name: [] for name in wanted}, set(), time.monotonic() + seconds
    for kind, message in client.events():
        if kind == "delta":
            tokens[message["id"]] += message["token_ids"]
        elif kind == "done":
            ended.add(message["id"])
        elif kind == "failure":
            raise RuntimeError(f"{message['id']}: {message['message']}")
        if len(ended) == len(wanted) or time.monotonic() > end:
            break
    client.close()
    return tokens


class Streams:
    """Keeps one stream of every request going on a thread of its own: what has ended is begun anew."""

    def __init__(self, address, wanted, expected):
        self.address, self.wanted, self.expected = address, wanted, expected
        self.lock = threading.Lock()  # guards what follows
        self.arrivals = []            # times of all tokens
        self.wrong = []               # sentences
        self.ended = self.server_losses = 0
        self.stopping = False         # what ends is not begun anew
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def begin_pause(self):
        """Forgets the arrivals but for the last one."""
        with self.lock:
            self.arrivals = self.arrivals[-1:]

    def tokens_since(self, when):
        with self.lock:
            return sum(arrival > when for arrival in self.arrivals)

    def longest_gap(self, since):
        """Seconds without a token of any stream, of those that have ended after `since`."""
        with self.lock:
            times = [since, *(arrival for arrival in self.arrivals if arrival > since)]
        return max((b - a for a, b in zip(times, times[1:])), default=0.0)

    def finish(self, seconds):
        """Lets what runs end; whether it did in time."""
        with self.lock:
            self.stopping = True
        self.thread.join(seconds)
        return not self.thread.is_alive()

    def _run(self):
        client, running, count = Client(self.address), {}, 0
        while True:
            try:
                while True:
                    with self.lock:
                        stopping = self.stopping
                    if not stopping:
                        for name in set(self.wanted) - {name for name, _ in running.values()}:
                            count += 1
                            client.generate(str(count), **self.wanted[name])
                            running[str(count)] = (name, [])
                    elif not running:
                        client.close()
                        return
                    for kind, message in client._poll(0.2):
                        self._take(kind, message, running)
            except ServerLost:  # the head has died; whatever had no final answer is sent again
                running = {}
                with self.lock:
                    self.server_losses += 1

    def _take(self, kind, message, running):
        if kind not in ("delta", "done", "failure"):
            return
        known = running.get(message["id"])
        with self.lock:
            if known is None:
                self.wrong.append(f"request {message['id']}: {kind} after its final answer")
                return
            name, tokens = known
            if kind == "delta":
                tokens += message["token_ids"]
                self.arrivals.append(time.monotonic())
                if tokens != self.expected[name][:len(tokens)]:
                    at = next(i for i, (a, b) in enumerate(zip(tokens, [*self.expected[name], None])) if a != b)
                    self.wrong.append(f"{name}: token {at} of {len(tokens)} is {tokens[at]}")
                return
            del running[message["id"]]
            self.ended += 1
            if kind == "failure":
                self.wrong.append(f"{name}: {message['code']}: {message['message']}")
            elif tokens != self.expected[name]:
                self.wrong.append(f"{name}: {len(tokens)} of {len(self.expected[name])} tokens")
