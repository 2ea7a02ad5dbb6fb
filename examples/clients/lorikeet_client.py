#!/usr/bin/env python3
"""A client of `lorikeet serve --zmq ADDRESS`, in Python. The protocol: comm/PROTOCOL.md. Needs pyzmq.

    lorikeet_client.py --zmq tcp://127.0.0.1:5555 --adapter moby "The whale" "Call me"

sends the prompts at once and prints each answer when it is complete.

    lorikeet_client.py --zmq tcp://127.0.0.1:5555 --load moby=/adapters/moby      (--unload moby, --list)

changes and shows the adapters of the server; --reset-prefix-cache forgets the prefixes that it has cached. As a module:
Client.generate(), Client.adapter(), Client.reset_prefix_cache() and Client.events().
"""
import argparse
import json
import os
import sys
import time

import zmq
import zmq.auth

VERSION = b"lorikeet/1"
SILENT_HEARTBEATS = 5


class ServerLost(Exception):
    """The server is silent, or another one. Every request without a final answer may be sent again."""


class Client:
    """One connection. Call events() (or wait_for_session()) often: they send the heartbeats."""

    def __init__(self, address, curve=None, plain=None):
        """curve: (own public key, own secret key, the server's public key); plain: (tenant, key)."""
        self.address = address
        self.curve, self.plain = curve, plain
        self.context = zmq.Context.instance()
        self.socket = None
        self._open()

    def generate(self, request_id, **fields):
        """Sends a request; the fields are those of GenerateRequest, e.g. prompt=, adapter=, max_tokens=. With n= there are
        that many answers: what comes has the answer's "index", and each has its own done."""
        if self.session is None:
            self.wait_for_session()
        self._send(b"generate", {"id": request_id, **fields})

    def cancel(self, request_id):
        self._send(b"cancel", {"id": request_id})

    def status(self, request_id="status"):
        if self.session is None:
            self.wait_for_session()
        self._send(b"status", {"id": request_id})

    def adapter(self, action, name=None, request_id="adapter", **fields):
        """Changes what is served: load (path=, load_inplace=), unload, pin, unpin, warm; or list, without a name."""
        if self.session is None:
            self.wait_for_session()
        self._send(b"adapter", {"id": request_id, "action": action, "name": name, **fields})

    def reset_prefix_cache(self, request_id="reset"):
        if self.session is None:
            self.wait_for_session()
        self._send(b"reset_prefix_cache", {"id": request_id})

    def wait_for_session(self):
        """What is sent before the server has named the session may be lost without a sign."""
        while self.session is None:
            for _ in self._poll(self.interval):
                pass

    def events(self):
        """Yields (kind, message) as they come: delta, done, failure, status, adapter, reset_prefix_cache."""
        while True:
            yield from self._poll(self.interval)

    def close(self):
        self.socket.close(linger=200)

    def _open(self):
        if self.socket is not None:
            self.socket.close(linger=0)  # what it still holds must not reach a server
        self.socket = self.context.socket(zmq.DEALER)
        if self.curve:
            self.socket.curve_publickey, self.socket.curve_secretkey, self.socket.curve_serverkey = self.curve
        elif self.plain:
            self.socket.plain_username, self.socket.plain_password = (text.encode() for text in self.plain)
        self.socket.connect(self.address)
        self.session = None
        self.interval = 2.0
        self.heard = time.monotonic()
        self._send(b"heartbeat", None)

    def _send(self, kind, message):
        body = b"" if message is None else json.dumps(message).encode()
        self.socket.send_multipart([VERSION, b"json", kind, body])
        self.spoke = time.monotonic()

    def _poll(self, seconds):
        """Waits for that long at the most and yields one event, or none."""
        now = time.monotonic()
        if now - self.spoke >= self.interval:
            self._send(b"heartbeat", None)
        until = min(now + seconds, self.spoke + self.interval)
        if not self.socket.poll(max(0, until - now) * 1000):
            if time.monotonic() - self.heard >= SILENT_HEARTBEATS * self.interval:
                self._lose("is silent")
            return
        version, encoding, kind, body = self.socket.recv_multipart()
        self.heard = time.monotonic()
        if (version, encoding) != (VERSION, b"json"):
            raise ValueError(f"the server speaks {version!r} in {encoding!r}")
        message = json.loads(body)
        if kind != b"heartbeat":
            yield kind.decode(), message
            return
        self.interval = message["interval_ms"] / 1000
        if self.session not in (None, message["session"]):
            self._lose("was started anew, or had not heard of this client for too long")
        self.session = message["session"]

    def _lose(self, why):
        self._open()
        raise ServerLost(f"the server at {self.address} {why}")


def change_server(client, arguments):
    if arguments.reset_prefix_cache:
        client.reset_prefix_cache()
    elif arguments.load:
        name, path = arguments.load.split("=", 1)
        client.adapter("load", name, path=path)
    elif arguments.unload:
        client.adapter("unload", arguments.unload)
    else:
        client.adapter("list")
    for kind, message in client.events():
        if kind == "failure":
            print(f"{message['code']}: {message['message']}", file=sys.stderr)
            return 1
        if kind == "reset_prefix_cache":
            print("the prefix cache is empty")
        elif message["json"] is None:
            print(message["message"])
        else:
            for row in json.loads(message["json"])["adapters"]:
                print(f"{row['name']}: {row['tier']}, rank {row['rank']}, {row['bytes']} bytes, {row['directory']}")
        return 0


def main():
    parser = argparse.ArgumentParser(description="Sends prompts to a Lorikeet server and prints the answers.")
    parser.add_argument("prompts", nargs="*")
    parser.add_argument("--zmq", default="tcp://127.0.0.1:5555", help="the server's address (%(default)s)")
    parser.add_argument("--adapter", help="a LoRA adapter by its name (the base model)")
    parser.add_argument("--max-tokens", type=int, default=32, help="tokens to generate at the most (%(default)s)")
    parser.add_argument("--field", action="append", default=[], metavar="NAME=JSON",
                        help="any other field of a request: min_tokens=4, timeout=2.5, 'logit_bias={\"15\": -100}', ...")
    parser.add_argument("--n", type=int, default=1, help="answers to each prompt (%(default)s)")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (%(default)s)")
    parser.add_argument("--tenant", help="PLAIN: give the key in LORIKEET_API_KEY as this tenant's")
    parser.add_argument("--curve-key", help="CURVE: a file of `lorikeet keygen`")
    parser.add_argument("--server-key", help="CURVE: the server's public key")
    parser.add_argument("--load", metavar="NAME=PATH", help="give a name to an adapter below the server's --lora-dir")
    parser.add_argument("--unload", metavar="NAME", help="take the name of an adapter away")
    parser.add_argument("--list", action="store_true", help="show the adapters")
    parser.add_argument("--reset-prefix-cache", action="store_true", help="forget the cached prefixes")
    arguments = parser.parse_args()
    changes = arguments.load or arguments.unload or arguments.list or arguments.reset_prefix_cache
    if bool(changes) == bool(arguments.prompts):
        parser.error("give prompts, or one of --load, --unload, --list and --reset-prefix-cache")

    fields = {name: json.loads(value) for name, value in (field.split("=", 1) for field in arguments.field)}
    curve = plain = None
    if arguments.curve_key:
        curve = (*zmq.auth.load_certificate(arguments.curve_key), arguments.server_key.encode())
    elif arguments.tenant:
        plain = (arguments.tenant, os.environ["LORIKEET_API_KEY"])
    client = Client(arguments.zmq, curve, plain)
    try:
        if changes:
            return change_server(client, arguments)
        for index, prompt in enumerate(arguments.prompts):
            client.generate(str(index), prompt=prompt, adapter=arguments.adapter, max_tokens=arguments.max_tokens,
                            temperature=arguments.temperature, n=arguments.n, **fields)
        texts = {(str(index), answer): "" for index in range(len(arguments.prompts)) for answer in range(arguments.n)}
        failed = False
        for kind, message in client.events():
            request_id = message["id"]
            if kind == "delta":
                texts[request_id, message["index"] or 0] += message["text"]
            elif kind == "done":
                prompt = arguments.prompts[int(request_id)]
                print(f"{prompt}{texts.pop((request_id, message['index'] or 0))}\n[{message['finish_reason']}]", flush=True)
            elif kind == "failure":
                print(f"{request_id or 'server'}: {message['code']}: {message['message']}", file=sys.stderr)
                failed = True
                own = [key for key in texts if key[0] == request_id]
                if not own:
                    break  # which request it was cannot be told, so one of them may never be answered
                for key in own:
                    del texts[key]
            if not texts:
                break
        return 1 if failed else 0
    except ServerLost as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        client.close()


if __name__ == "__main__":
    sys.exit(main())
