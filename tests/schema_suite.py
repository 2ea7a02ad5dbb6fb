#!/usr/bin/env python3
"""JSON Schema's own test suite (draft 2020-12) against the grammars.

    tests/schema_suite.py BUILD/bin/grammar_tool [DIRECTORY]

The suite comes with the source distribution of `jsonschema` on PyPI, which is fetched into DIRECTORY (build/schema-suite),
pinned by version and hash. For every schema that is not refused, no instance that the suite calls invalid may be accepted.
A grammar may be narrower than its schema, where models would not write what it leaves out: an instance that is valid and
not accepted must be one of what NARROWER names. What is refused is refused by name.
"""
import collections
import hashlib
import io
import json
import pathlib
import subprocess
import sys
import tarfile

VERSION, SHA256 = "4.26.0", "0c26707e2efad8aa1bfc5b7ce170f3fccc2e4918ff85989ba9ffa9facb2be326"
TOP = pathlib.Path(__file__).parent.parent
MODEL = TOP / "examples/models/tiny-qwen2-gptq-int4"
# Files of the suite that need schemas from elsewhere, or test what is no part of a schema's own keywords.
LEFT_OUT = {"refRemote", "vocabulary", "dynamicRef", "unevaluatedItems", "unevaluatedProperties", "anchor", "defs", "id"}
# By file: why what is valid may be refused.
ONE_TYPE = "what implies a type is taken for saying it"
CLOSED = "objects and lists have what the schema names and no more, where it does not speak of others"
AS_WRITTEN = "numbers and objects of const and enum, and integers, as they are written"
NARROWER = {
    "additionalProperties": CLOSED + "; patterns are of whole names",
    "anyOf": CLOSED,
    "const": AS_WRITTEN,
    "enum": AS_WRITTEN,
    "items": ONE_TYPE,
    "prefixItems": CLOSED + "; " + ONE_TYPE,
    "properties": CLOSED + "; " + ONE_TYPE,
    "ref": CLOSED,
    "required": ONE_TYPE,
    "type": AS_WRITTEN,
    "uniqueItems": CLOSED,
}


def fetch(directory):
    """The suite's tests of draft 2020-12, by name."""
    path = directory / f"jsonschema-{VERSION}.tar.gz"
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", directory, f"jsonschema=={VERSION}"], check=True)
    data = path.read_bytes()
    assert hashlib.sha256(data).hexdigest() == SHA256, f"{path} is another file than it was"
    suite = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            name = pathlib.PurePosixPath(member.name)
            if member.isfile() and name.match("json/tests/draft2020-12/*.json"):
                suite[name.stem] = json.load(tar.extractfile(member))
    return suite


def main():
    suite = fetch(pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else TOP / "build/schema-suite")
    tool = subprocess.Popen([sys.argv[1], str(MODEL), "2048"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    refused, narrower, wrong, counts = collections.Counter(), collections.defaultdict(list), [], collections.Counter()
    for name, groups in sorted(suite.items()):
        for group in [] if name in LEFT_OUT else groups:
            schema, tests = group["schema"], group["tests"]
            instances = [json.dumps(test["data"], ensure_ascii=False, separators=(",", ":")) for test in tests]
            tool.stdin.write(json.dumps({"kind": 0, "text": json.dumps(schema), "instances": instances}) + "\n")
            tool.stdin.flush()
            answer = json.loads(tool.stdout.readline())
            counts["schemas"] += 1
            if answer["error"]:
                refused[f"{name}: {answer['error']}"] += 1
                continue
            counts["taken"] += 1
            for test, accepted, text in zip(tests, answer["accepted"], instances):
                counts["instances"] += 1
                if accepted and not test["valid"]:
                    wrong.append(f"{name}: {group['description']}: {test['description']}: {json.dumps(schema)} takes {text}")
                if not accepted and test["valid"]:
                    narrower[name].append(f"{group['description']}: {test['description']}: {json.dumps(schema)} refuses {text}")
    for line, count in sorted(refused.items()):
        print(f"refused {count} x {line}")
    for name, lines in narrower.items():
        print(f"narrower in {name}: {len(lines)}" + (f" ({NARROWER[name]})" if name in NARROWER else ""))
        if name not in NARROWER:
            wrong += [f"{name}: {line}" for line in lines]
    for line in wrong:
        print("wrong:", line)
    print(f"{counts['schemas']} schemas, {counts['taken']} taken, {counts['instances']} instances, {sum(map(len, narrower.values()))} valid ones left out, {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
