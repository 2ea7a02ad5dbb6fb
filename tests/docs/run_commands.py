#!/usr/bin/env python3
"""Runs the commands of Markdown documents, so that none of them is wrong.

run_commands.py BINARY_DIRECTORY DOCUMENT ...

`console` blocks: each line behind "$ " is run by one bash per document, in a scratch directory with the repository's
examples, and must end with status 0. A server that is started in the background serves before the next command runs; it gets
ports of its own, and clients are led to it. `sh` blocks are for other machines: the flags that they give `lorikeet` must exist.
"""
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE_S = 300  # for a whole document

# What stands before a document's commands: servers on ports of their own, and a stop when one fails.
PRELUDE = """
set -eo pipefail
lorikeet() {{
  local words=("$@")
  case "$1" in
    serve) words+=(--port {http} --zmq {zmq}) ;;
    submit|status) words+=(--zmq {zmq}) ;;
    adapters) words+=(--zmq {zmq}) ;;
    chat) [[ " $* " == *" --url "* ]] || words+=(--zmq {zmq}) ;;
    bench) [[ "$2" != serve || " $* " == *" --url "* ]] || words+=(--zmq {zmq}) ;;
  esac
  if [[ "$1" == serve ]]; then exec lorikeet "${{words[@]}}"; fi  # it is in the background: signals reach it
  command lorikeet "${{words[@]}}"
}}
await_server() {{
  for ((i = 0; i < 1200; ++i)); do
    grep -q '^serving ' "$1" && return
    kill -0 $! 2> /dev/null || break
    sleep 0.05
  done
  echo "the server did not come up"; cat "$1"; return 1
}}
stop_server() {{
  status=$?
  for job in $(jobs -p); do kill -TERM "$job" 2> /dev/null && wait "$job" || true; done
  exit $status
}}
trap stop_server EXIT
"""


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def script_of(commands, http, zmq):
    lines = [PRELUDE.format(http=http, zmq=zmq)]
    for number, command in enumerate(commands):
        command = command.replace("localhost:8000", f"127.0.0.1:{http}")
        lines.append(f"echo {shlex.quote('$ ' + command)}")
        if command.endswith("&"):
            log = f"server-{number}.log"
            lines.append(f"{command[:-1]} > {log} 2>&1 &\nawait_server {log}")
        else:
            lines.append(command)
    return "\n".join(lines) + "\n"


def run_document(document, environment):
    commands = [line[2:] for block in blocks(document.read_text(), "console") for line in block.splitlines()
                if line.startswith("$ ")]
    if not commands:
        return True
    with tempfile.TemporaryDirectory(prefix="lorikeet-docs-") as scratch:
        os.symlink(ROOT / "examples", Path(scratch) / "examples")
        http = free_port()
        script = script_of(commands, http, f"ipc://{scratch}/zmq")
        done = subprocess.run(["bash", "-c", script], cwd=scratch, env=environment, timeout=PATIENCE_S,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        print(f"{document.name}: a command failed:\n{done.stdout.decode(errors='replace')}")
        return False
    print(f"{document.name}: {len(commands)} commands")
    return True


def check_flags(document, environment):
    fine = True
    for line in "\n".join(blocks(document.read_text(), "sh")).replace("\\\n", " ").splitlines():
        words = line.split()
        if words[:1] != ["lorikeet"]:
            continue
        command = [word for word in words[1:3] if re.fullmatch(r"[a-z]+", word)]
        if command[:1] != ["bench"] and command[:1] != ["adapters"]:
            command = command[:1]
        shown = subprocess.run(["lorikeet", *command, "--help"], env=environment, capture_output=True, text=True).stdout
        for flag in (word.split("=")[0] for word in words if word.startswith("--")):
            if not re.search(rf"{re.escape(flag)}\b", shown):
                print(f"{document.name}: lorikeet {' '.join(command)} has no {flag}")
                fine = False
    return fine


def main():
    binary, *documents = sys.argv[1:]
    environment = dict(os.environ, PATH=f"{Path(binary).resolve()}:{os.environ['PATH']}")
    environment.pop("LORIKEET_API_KEY", None)
    results = [check(Path(document), environment) for document in documents for check in (check_flags, run_document)]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
