#!/usr/bin/env python3
"""Completion of the command line where it is used: a key is typed into bash, zsh and fish, and their line is read.

  complete_in_shells.py BINARY_DIRECTORY

Prints what is wrong and exits 1 when anything is; 77 where none of the shells is installed.
"""
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NO_SHELL = 77
PATIENCE_S = 60

# What is typed, and what the line is after the tabulator.
CASES = [
    ("lorikeet ser", "lorikeet serve"),
    ("lorikeet bench lat", "lorikeet bench latency"),
    ("lorikeet adapters unl", "lorikeet adapters unload"),
    ("lorikeet serve --tensor-par", "lorikeet serve --tensor-parallel-size"),
    ("lorikeet serve --device cud", "lorikeet serve --device cuda"),
    ("lorikeet bench serve --request-r", "lorikeet bench serve --request-rate"),
    ("lorikeet bench serve --tensor-par", "lorikeet bench serve --tensor-par"),  # that is a flag of `serve`
    ("lorikeet bench latency --tensor-par", "lorikeet bench latency --tensor-parallel-size"),
    ("lorikeet inspect some-che", "lorikeet inspect some-checkpoint"),
    ("lorikeet serve some-che", "lorikeet serve some-checkpoint"),
]

# How each is started, and what it is told first: the script, and a key (Ctrl-X Ctrl-Y) that writes the line to a file.
KEY = "\x18\x19"
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"],
             "source <(lorikeet completion bash); bind -x '\"\\C-x\\C-y\": printf \"%s\\n\" \"$READLINE_LINE\" > line'"),
    "zsh": (["zsh", "-f", "-i"],
            "autoload -U compinit; compinit -u -D; source <(lorikeet completion zsh); write() { print -r -- \"$BUFFER\" >"
            " line }; zle -N write; bindkey '^X^Y' write"),
    "fish": (["fish", "--no-config", "-i"],
             "lorikeet completion fish | source; bind \\cx\\cy 'commandline > line'"),
}


class Shell:
    """An interactive one in a pseudo-terminal."""

    def __init__(self, command, scratch, environment):
        self.line = scratch / "line"
        pid, self.terminal = pty.fork()
        if pid == 0:
            os.chdir(scratch)
            os.execvpe(command[0], command, environment)
        self.pid = pid

    def end(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)

    def settle(self):
        """Drops what keys that were typed more than once still write."""
        self.type("\x05\x15settled" + KEY)
        while self.wait_for_line("settling") != "settled":
            pass

    def type(self, keys):
        os.write(self.terminal, keys.encode())

    def wait_for_line(self, what, again=""):
        """Until it has written the file; its content. The screen is read meanwhile, so that the shell can go on.
        again: keys that are typed until then, since a shell that has no prompt yet does not take them."""
        end = time.monotonic() + PATIENCE_S
        screen, typed = b"", 0
        while not (self.line.exists() and self.line.read_bytes().endswith(b"\n")):
            if time.monotonic() > end:
                raise TimeoutError(f"{what}: no answer; on the screen is {screen.decode(errors='replace')!r}")
            if again and time.monotonic() > typed + 0.5:
                typed = time.monotonic()
                self.type(again)
            if select.select([self.terminal], [], [], 0.02)[0]:
                screen += os.read(self.terminal, 1 << 16)
        content = self.line.read_text().rstrip("\n")
        self.line.unlink()
        return content


def try_shell(name, environment):
    command, start = SHELLS[name]
    wrong = []
    with tempfile.TemporaryDirectory(prefix="lorikeet-shell-") as directory:
        scratch = Path(directory)
        (scratch / "some-checkpoint").mkdir()
        shell = Shell(command, scratch, dict(environment, HOME=directory))
        try:
            shell.type(start + "\r")
            shell.wait_for_line(f"{name} at its start", again=KEY)
            shell.settle()
            for typed, expected in CASES:
                shell.type(f"\x05\x15{typed}\t{KEY}")  # an empty line, the words, the tabulator, the key
                got = shell.wait_for_line(f"{name}: {typed}").rstrip(" /")
                if got != expected:
                    wrong.append(f"{name}: {typed!r} became {got!r} and not {expected!r}")
        except TimeoutError as late:
            wrong.append(str(late))
        finally:
            shell.end()
    return wrong


def try_man_pages(binary, environment):
    """Each command's page, as man(1) formats it, without a warning."""
    if not shutil.which("man"):
        return []
    wrong = []
    for command in ("serve", "bench serve", "adapters load", "submit", "chat"):
        page = subprocess.run([binary, "man", *command.split()], capture_output=True, text=True, env=environment).stdout
        with tempfile.NamedTemporaryFile("w", suffix=".1") as file:
            file.write(page)
            file.flush()
            shown = subprocess.run(["man", "--warnings", "-l", file.name], capture_output=True, text=True,
                                   env=dict(environment, MANPAGER="cat", MANWIDTH="80", LC_ALL="C.UTF-8"))
        if shown.returncode != 0 or shown.stderr or "EXIT STATUS" not in shown.stdout:
            wrong.append(f"man of {command}: {shown.stderr or shown.stdout[:200]}")
    return wrong


def main():
    binary = Path(sys.argv[1]).resolve()
    environment = dict(os.environ, PATH=f"{binary}:{os.environ['PATH']}", TERM="xterm", LC_ALL="C.UTF-8")
    shells = [name for name in SHELLS if shutil.which(name)]
    if not shells:
        return NO_SHELL
    wrong = [line for name in shells for line in try_shell(name, environment)]
    wrong += try_man_pages(binary / "lorikeet", environment)
    print("\n".join(wrong) if wrong else f"completion in {', '.join(shells)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
