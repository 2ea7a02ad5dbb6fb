#!/usr/bin/env python3
"""Encodes texts with huggingface/tokenizers, for tests/model/tokenizer/tokenizer_test.cc.

    pip install tokenizers
    tests/data/make/tokenizer_vectors.py

Writes tests/data/tokenizer/vectors.json over the example model's tokenizer.json: "plain" has ids with control tokens
parsed and not; "added" has added tokens of every flag and ids of texts that hold them; "framed" has post-processors and
the ids that they make of texts.
"""
import json
import pathlib
import random

from tokenizers import Tokenizer

ROOT = pathlib.Path(__file__).parents[3]
SOURCE = ROOT / "examples/models/tiny-qwen2-gptq-int4/tokenizer.json"

TEXTS = [
    "",
    " ",
    "Call me Ishmael. Some years ago--never mind how long precisely",
    "ROMEO:\nBut soft, what light",
    "I'm YOU'RE they'Ve 'tis o'clock it'\u017f 'LL'd",
    "1234567890 3.14 \u0663\u0664 \u216b \u00bd",
    "tabs\t\tand  spaces   \n  \n\n \r\n end  ",
    "\u00a0\u2003\u3000\u0085\u180e\u200b\u2028\x0b\x0c\x1c\x1f",
    "cafe\u0301 caf\u00e9 \u1100\u1161\u11a8 \uac01 \u0344 \u212b \u0958 \ufb01",
    "a\u0315\u0300\u05ae\u0301b \U0001d15e \u0f73",
    "\u5316\u597d\u52a0 \u3053\u3093\u306b\u3061\u306f \ud55c\uad6d\uc5b4 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
    "\U0001f642\U0001f44d\U0001f3fd\u200d\U0001f469 e\u20dd",
    "<|im_start|>user\nhi<|im_end|><|endoftext|>",
    "<|im_start|><|im_start|> <|im_end |> <|im_<|im_end|>",
    "def f(x):\n    return {'a': [x, -1], \"b\": None}  # \u2026",
    "x" * 100 + " " * 70 + "=" * 80 + "\n" * 10,
    "the" * 60,
]

ADDED = [
    {"id": 2048, "content": "<left>", "lstrip": True, "rstrip": False, "single_word": False, "normalized": False, "special": True},
    {"id": 2049, "content": "<right>", "lstrip": False, "rstrip": True, "single_word": False, "normalized": False, "special": True},
    {"id": 2050, "content": "whale", "lstrip": False, "rstrip": False, "single_word": True, "normalized": True, "special": False},
    {"id": 2051, "content": "caf\u00e9", "lstrip": False, "rstrip": False, "single_word": False, "normalized": True, "special": False},
    {"id": 2052, "content": "<e\u0301>", "lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": False},
    {"id": 2053, "content": "<left><right>", "lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True},
    {"id": 2054, "content": "both", "lstrip": True, "rstrip": True, "single_word": True, "normalized": False, "special": False},
]
ADDED_TEXTS = [
    "a \t\u3000<left> b",
    "a <right> \n b",
    "a <left><right> b",
    "<left> <left>  <right>  <right> <left>",
    "whale whales a_whale whale. \u00e9whale whale\u0301 (whale)",
    "cafe\u0301 caf\u00e9s decaf\u00e9",
    "<e\u0301> <\u00e9>",
    "x both  both bothy . both\n",
    "<right><left>",
]


def special(name):
    return {"SpecialToken": {"id": name, "type_id": 0}}


A, B = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
SPECIALS = {
    "<|im_start|>": {"id": "<|im_start|>", "ids": [2046], "tokens": ["<|im_start|>"]},
    "<|im_end|>": {"id": "<|im_end|>", "ids": [2047], "tokens": ["<|im_end|>"]},
    "both": {"id": "both", "ids": [2046, 5], "tokens": ["<|im_start|>", "x"]},
}


def template(single):
    return {"type": "TemplateProcessing", "single": single, "pair": single + [B], "special_tokens": SPECIALS}


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
BERT = {"type": "BertProcessing", "sep": ["<|im_end|>", 2047], "cls": ["<|im_start|>", 2046]}
POST_PROCESSORS = [
    None,
    BYTE_LEVEL,
    template([special("<|im_start|>"), A]),
    template([A, special("<|im_end|>")]),
    template([special("both"), special("<|im_start|>"), A, special("<|im_end|>"), special("<|im_end|>")]),
    template([A]),
    BERT,
    {**BERT, "type": "RobertaProcessing", "trim_offsets": True, "add_prefix_space": False},
    {"type": "Sequence", "processors": []},
    {"type": "Sequence", "processors": [BYTE_LEVEL, template([special("<|im_start|>"), A])]},
    {"type": "Sequence", "processors": [{"type": "Sequence", "processors": [BERT]}, BYTE_LEVEL]},
]


def framed():
    for post_processor in POST_PROCESSORS:
        file = json.loads(SOURCE.read_text(encoding="utf-8"))
        file["post_processor"] = post_processor
        tokenizer = Tokenizer.from_str(json.dumps(file))
        for text in ["", "hi", "<|im_start|>user<|im_end|>"]:
            yield {"post_processor": post_processor, "text": text, "ids": tokenizer.encode(text).ids}


def random_texts(count):
    generator = random.Random(14)
    alphabet = list("etaoin shrdlu\n\t'-.,0123") + ["\u0301", "\u00e9", "\u1161", "\uac00", "\u4e2d", "\U0001f600", " the", "<|im_end|>"]
    return ["".join(generator.choices(alphabet, k=generator.randrange(1, 40))) for _ in range(count)]


def main():
    tokenizer = Tokenizer.from_file(str(SOURCE))
    plain = []
    for text in TEXTS + random_texts(60):
        tokenizer.encode_special_tokens = False
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = True
        unparsed = tokenizer.encode(text, add_special_tokens=False).ids
        decoded = tokenizer.decode(ids, skip_special_tokens=False)
        plain.append({"text": text, "ids": ids, "ids_unparsed": unparsed, "decoded": decoded})

    with_added = json.loads(SOURCE.read_text(encoding="utf-8"))
    with_added["added_tokens"] += ADDED
    tokenizer = Tokenizer.from_str(json.dumps(with_added))
    cases = []
    for text in ADDED_TEXTS:
        tokenizer.encode_special_tokens = False
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = True
        cases.append({"text": text, "ids": ids, "ids_unparsed": tokenizer.encode(text, add_special_tokens=False).ids})

    out = ROOT / "tests/data/tokenizer/vectors.json"
    sections = {"plain": plain, "added_tokens": ADDED, "added": cases, "framed": list(framed())}
    body = ",\n".join(
        json.dumps(name) + ": [\n" + ",\n".join(json.dumps(one) for one in section) + "\n]" for name, section in sections.items()
    )
    out.write_text("{\n" + body + "\n}\n", encoding="utf-8")
    print(f"{out}: {len(plain)} + {len(cases)} texts")


main()
