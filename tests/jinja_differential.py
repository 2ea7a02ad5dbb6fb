#!/usr/bin/env python3
"""Compares the chat templates' interpreter with Jinja2 on random templates, for as long as it is told.

    tests/jinja_differential.py BUILD/bin/jinja_tool [SECONDS] [SEED]

Needs jinja2 (Debian: python3-jinja2). Exits 1 at the first difference, and prints it. A template that one refuses and the
other renders is a difference, too, except where the interpreter says that something "is not served". Two things that
Jinja does at compile time are left out: it prints nothing for a constant without slices that is sliced (5[1:]), and minds
an unknown filter inside of an `if` only when it comes there.
"""
import json
import pathlib
import random
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent / "data/make"))
from transformers_jinja import environment  # noqa: E402

VARIABLES = {
    "messages": [
        {"role": "system", "content": "Be brief.\n"},
        {"role": "user", "content": "  Hi <b>é</b> "},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"a": [1, None]}}}]},
    ],
    "s": "The quick, brown\nfox é🙂 x",
    "l": [3, 1, 2, 3],
    "w": ["b", "A", "a"],
    "d": {"x": 1, "role": "r", "k": [1, {"z": 2}]},
    "n": 7,
    "f": 2.5,
    "t": True,
    "o": None,
    "e": "",
}
FILTERS = [
    "upper", "lower", "trim", "length", "first", "last", "list", "string", "capitalize", "title", "reverse | list", "sort", "unique | list",
    "join", "join(', ')", "default('d')", "default('d', true)", "tojson", "tojson(indent=2)", "int", "float", "abs", "round", "replace('a', 'b')",
    "map('upper') | list", "select | list", "reject('none') | list", "items | list", "indent(2)", "wordcount", "min", "max", "sum", "batch(2) | list",
    "truncate(9)", "center(12)", "dictsort", "selectattr('role') | list", "map(attribute='role') | list", "trim('x')", "e", "safe",
]
TESTS = ["defined", "none", "string", "number", "mapping", "sequence", "iterable", "odd", "boolean", "undefined", "integer", "float", "lower", "in [1, 'a']", "eq 7", "divisibleby(2)"]
METHODS = ["strip()", "split()", "split(',')", "upper()", "lstrip('T')", "startswith('T')", "replace('o', '0')", "split('\\n')[-1]", "find('q')", "items()", "get('x')", "count(3)", "endswith('x')", "rstrip()", "splitlines()", "title()", "partition(' ')", "rsplit(' ', 1)"]


class Maker:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.names = list(VARIABLES) + ["undefined_name"]

    def pick(self, *options):
        return self.random.choice(options)

    def atom(self):
        kind = self.random.randrange(7)
        if kind < 3:
            return self.random.choice(self.names)
        if kind == 3:
            return str(self.random.randrange(-3, 12))
        if kind == 4:
            return self.pick("'a'", "'x y'", "'<|im_start|>'", "''", "'é\\n'", "1.5", "true", "none", "false")
        if kind == 5:
            return self.pick("[]", "[1, 'a']", "{}", "{'a': 1}", "(1, 2)", "()")
        return self.pick("messages[0].role", "messages[-1].tool_calls", "d.k", "d['x']", "s[1:4]", "l[::-1]", "messages[1]['content']", "w[0]")

    def expression(self, depth=0):
        if depth > 3 or self.random.random() < 0.25:
            return self.atom()
        more = lambda: self.expression(depth + 1)  # noqa: E731
        kind = self.random.randrange(12)
        if kind == 0:
            return f"({more()} {self.pick('+', '-', '*', '//', '%', '/', '~', '~')} {more()})"
        if kind == 1:
            return f"({more()} {self.pick('==', '!=', '<', '>=', 'in', 'not in')} {more()})"
        if kind == 2:
            return f"({more()} {self.pick('and', 'or')} {more()})"
        if kind == 3:
            return f"({more()} if {more()} else {more()})"
        if kind in (4, 5):
            return f"({more()} | {self.random.choice(FILTERS)})"
        if kind == 6:
            return f"({more()} is {self.pick('', 'not ')}{self.random.choice(TESTS)})"
        if kind in (7, 8):
            return f"{more()}.{self.random.choice(METHODS)}"
        if kind == 9:
            if self.random.random() < 0.3:  # of names alone: Jinja folds 5[1:] to nothing where it is printed
                return f"{self.random.choice(self.names)}[{self.pick('1:', ':2', '::-1')}]"
            return f"{more()}[{self.pick('0', '-1', more(), more())}]"
        if kind == 10:
            return f"(not {more()})"
        return f"[{more()}, {more()}]"

    def tag(self, inside):
        return "{%" + self.pick("", "-", "+", "", "") + " " + inside + " " + self.pick("", "-", "", "") + "%}"

    def text(self):
        return self.pick("", " ", "\n", "\n  ", "a", " b ", "<|im_end|>\n", "  \n\n", "\t", "é")

    def block(self, depth=0):
        return "".join(self.text() + self.statement(depth) for _ in range(self.random.randrange(1, 4))) + self.text()

    def macro(self, inner):
        """A macro that may be called before what it names is set, with blocks, and with more than its parameters."""
        name = self.pick("m", "k")
        special = self.pick("", "", "{{ varargs }}", "{{ kwargs }}", "{{ caller() }}", "{{ caller(n) }}", "{{ caller is defined }}")
        parameters = self.pick("", "a", "a, n=q", f"a={self.expression(2)}, q=a", "n, a=n", "s=n, n=s")
        arguments = self.pick("", "1", "1, 2", "n=4", "q, n=s", "a=1", "1, 2, 3")
        call = self.pick(
            "{{ " + f"{name}({arguments})" + " }}",
            self.tag(f"call{self.pick('', '(x)', '(n, q=n)')} {name}({arguments})") + "{{ x }}{{ q }}" + inner() + self.tag("endcall"),
        )
        late = self.pick("", self.tag(f"set {self.pick('n', 'q', 's', name)} = {self.expression(2)}"))
        body = self.tag(f"macro {name}({parameters})") + "{{ n }}{{ q }}" + special + inner() + self.tag("endmacro")
        return self.pick(body + call + late, body + late + call, call + body, body + self.pick("", call))

    def statement(self, depth):
        kind = self.random.randrange(11) if depth < 3 else 0
        inner = lambda: self.block(depth + 1)  # noqa: E731
        if kind < 4:
            return "{{" + self.pick("", "-", "") + " " + self.expression() + " " + self.pick("", "-", "") + "}}"
        if kind == 4:
            return self.tag(f"if {self.expression()}") + inner() + self.pick("", self.tag("else") + inner()) + self.tag("endif")
        if kind == 5:
            loop = self.pick("{{ loop.index }}", "{{ loop.last }}", "{{ i }}", "{{ loop.previtem }}", "{{ loop.length }}")
            condition = self.pick("", "", f" if {self.expression(2)}")
            flow = self.pick("", "", self.tag("if " + self.expression(2)) + self.tag(self.pick("break", "continue")) + self.tag("endif"))
            return self.tag(f"for i in {self.expression()}{condition}") + flow + loop + inner() + self.pick("", self.tag("else") + inner()) + self.tag("endfor")
        if kind == 6:
            return self.tag(f"set {self.pick('n', 'q', 's')} = {self.expression()}")
        if kind == 7:
            return self.tag("set q") + inner() + self.tag("endset") + "{{ q }}"
        if kind == 8:
            return self.tag("set ns = namespace(a=1)") + self.tag(f"set ns.a = {self.expression()}") + "{{ ns.a }}"
        if kind == 9 and self.random.random() < 0.5:
            return self.macro(inner)
        if kind == 9:
            return self.tag(f"macro m(a, b={self.expression(2)})") + "{{ a }}{{ b }}" + inner() + self.tag("endmacro") + "{{ m(" + self.expression(2) + ") }}"
        return self.pick(self.tag("generation") + inner() + self.tag("endgeneration"), "{# c #}", self.tag(f"with q = {self.expression()}") + "{{ q }}" + self.tag("endwith"), self.tag("filter upper") + inner() + self.tag("endfilter"))


def rendered(env, template):
    try:
        return env.from_string(template).render(**VARIABLES)
    except Exception:
        return None


def main():
    tool = subprocess.Popen([sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 60
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else time.time_ns() % 2**32
    print("seed", seed, flush=True)
    maker, env, end = Maker(seed), environment(), time.monotonic() + seconds
    count = agreed = refused = 0
    while time.monotonic() < end:
        template = maker.block()
        wanted = rendered(env, template)
        tool.stdin.write(json.dumps({"template": template, "variables": VARIABLES}) + "\n")
        tool.stdin.flush()
        answer = json.loads(tool.stdout.readline())
        count += 1
        if answer["text"] == wanted:
            agreed += wanted is not None
            continue
        if answer["text"] is None and ("not served" in answer["error"] or "is printed" in answer["error"]):
            refused += 1
            continue
        if wanted is not None and " at 0x" in wanted:  # the address of a Python object
            continue
        print(f"template {count}:\n{template}\n--- jinja2\n{wanted!r}\n--- here\n{answer['text']!r} {answer['error']}")
        return 1
    print(f"{count} templates, {agreed} rendered alike, {refused} not served")
    return 0


if __name__ == "__main__":
    sys.exit(main())
