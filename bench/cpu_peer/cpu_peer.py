#!/usr/bin/env python3
"""Times Lorikeet's CPU path and llama.cpp's side by side: one prompt, then tokens one by one, batch 1.

The model has the shape of Qwen2.5-1.5B (config.json here) and random weights: groups of 128 in int4 for Lorikeet, Q4_0
for llama.cpp, the tied embedding in fp16 for both. Rounds alternate, so that other programs on the machine disturb all
alike; what is printed are medians over the rounds, and the shortest.

Needs llama-cpp-python and gguf from PyPI, in this Python's environment or in that of --llama-python:
  pip install llama-cpp-python==0.3.36 gguf
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent


def write_gguf(path, config):
    """A GGUF of random weights. Needs gguf and numpy."""
    import gguf
    import numpy

    random = numpy.random.default_rng(1)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    kv_size = hidden // heads * kv_heads

    def q4_0(outputs, inputs):
        # Blocks of 32 weights: a scale in fp16, then 16 bytes of nibbles.
        blocks = random.integers(0, 256, (outputs, inputs // 32, 18), dtype=numpy.uint8)
        scale = numpy.array([1 / (4.6 * inputs**0.5)], dtype=numpy.float16).view(numpy.uint8)
        blocks[:, :, :2] = scale
        return blocks.reshape(outputs, inputs // 32 * 18)

    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(hidden)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    embedding = random.standard_normal((config["vocab_size"], hidden), dtype=numpy.float32) * 0.02
    writer.add_tensor("token_embd.weight", embedding.astype(numpy.float16))
    ones = numpy.ones(hidden, dtype=numpy.float32)
    writer.add_tensor("output_norm.weight", ones)
    for layer in range(config["num_hidden_layers"]):
        name = f"blk.{layer}."
        writer.add_tensor(name + "attn_norm.weight", ones)
        writer.add_tensor(name + "ffn_norm.weight", ones)
        for part, outputs, inputs in [("attn_q", hidden, hidden), ("attn_k", kv_size, hidden), ("attn_v", kv_size, hidden),
                                      ("attn_output", hidden, hidden), ("ffn_gate", inner, hidden),
                                      ("ffn_up", inner, hidden), ("ffn_down", hidden, inner)]:
            writer.add_tensor(name + part + ".weight", q4_0(outputs, inputs), raw_dtype=gguf.GGMLQuantizationType.Q4_0)
            if part in ("attn_q", "attn_k", "attn_v"):
                writer.add_tensor(name + part + ".bias", numpy.zeros(outputs, dtype=numpy.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def time_llama(model, threads, prompt_len, output_len):
    """Milliseconds of the prompt and of each token after it, through llama.cpp's C interface."""
    import ctypes
    import random
    import time

    import llama_cpp as llama

    quiet = llama.llama_log_callback(lambda level, text, data: None)
    llama.llama_log_set(quiet, ctypes.c_void_p(0))
    llama.llama_backend_init()
    loaded = llama.llama_model_load_from_file(str(model).encode(), llama.llama_model_default_params())
    params = llama.llama_context_default_params()
    params.n_ctx = prompt_len + output_len + 16
    params.n_batch = params.n_ubatch = max(512, prompt_len)
    params.n_threads = params.n_threads_batch = threads
    context = llama.llama_init_from_model(loaded, params)
    vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(loaded))

    def step(ids):
        tokens = (llama.llama_token * len(ids))(*ids)
        if llama.llama_decode(context, llama.llama_batch_get_one(tokens, len(ids))) != 0:
            raise RuntimeError("llama_decode failed")
        logits = llama.llama_get_logits_ith(context, -1)
        return max(range(0, vocabulary, 997), key=lambda i: logits[i])

    step([1, 2, 3])  # its threads and buffers
    llama.llama_memory_clear(llama.llama_get_memory(context), True)
    ids = [random.randrange(vocabulary) for _ in range(prompt_len)]
    begin, cpu = time.perf_counter(), time.process_time()
    token = step(ids)
    times = {"prompt": 1e3 * (time.perf_counter() - begin), "prompt cpu": 1e3 * (time.process_time() - cpu)}
    tokens, cpus = [], []
    for _ in range(output_len):
        begin, cpu = time.perf_counter(), time.process_time()
        token = step([token])
        tokens.append(time.perf_counter() - begin)
        cpus.append(time.process_time() - cpu)
    times.update({"token": 1e3 * statistics.median(tokens), "token shortest": 1e3 * min(tokens),
                  "token cpu shortest": 1e3 * min(cpus)})
    print(json.dumps(times))


def run_llama(args, gguf_path):
    command = [args.llama_python, __file__, "--time-llama", gguf_path, "--threads", str(args.threads), "--input-len",
               str(args.input_len), "--output-len", str(args.output_len)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def run_lorikeet(args, model, activations, into):
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
    command = [args.lorikeet, "bench", "latency", model, "--load-format", "dummy", "--device", "cpu", "--threads",
               str(args.threads), "--batch-size", "1", "--input-len", str(args.input_len), "--output-len",
               str(args.output_len), "--num-iters-warmup", "1", "--num-iters", "1", "--max-model-len",
               str(args.input_len + args.output_len + 16), "--no-enable-prefix-caching", "--cpu-activations", activations,
               "--output-json", into]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    figures = {f["name"]: f for f in json.loads(Path(into).read_text())["figures"]}
    token, prompt = figures["time per output token, median"], figures["first tokens of all, median"]
    return {"prompt": prompt["value"], "token": token["value"], "token floor": token["floor"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lorikeet", default="build/release/bin/lorikeet")
    parser.add_argument("--llama-python", default=sys.executable, help="a Python that has llama-cpp-python and gguf")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--input-len", type=int, default=512)
    parser.add_argument("--output-len", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gguf", default="", help="where the random GGUF lies or is written (default: temporary)")
    parser.add_argument("--write-gguf", default="", help=argparse.SUPPRESS)
    parser.add_argument("--time-llama", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write_gguf:
        return write_gguf(args.write_gguf, json.loads((HERE / "config.json").read_text()))
    if args.time_llama:
        return time_llama(args.time_llama, args.threads, args.input_len, args.output_len)

    with tempfile.TemporaryDirectory() as directory:
        gguf_path = args.gguf or os.path.join(directory, "random.gguf")
        if not os.path.exists(gguf_path):
            subprocess.run([args.llama_python, __file__, "--write-gguf", gguf_path], check=True)
        runs = {
            "llama.cpp": lambda: run_llama(args, gguf_path),
            "float32": lambda: run_lorikeet(args, str(HERE), "float32", os.path.join(directory, "figures.json")),
            "int8": lambda: run_lorikeet(args, str(HERE), "int8", os.path.join(directory, "figures.json")),
        }
        times = {name: [] for name in runs}
        for _ in range(args.rounds):
            for name, run in runs.items():
                times[name].append(run())
                print(name, json.dumps(times[name][-1]), flush=True)
    for what in ("token", "prompt"):
        peer = {f: f([t[what] for t in times["llama.cpp"]]) for f in (statistics.median, min)}
        for name in runs:
            values = [t[what] for t in times[name]]
            line = f"{what}, {name}: median {statistics.median(values):.1f} ms, shortest {min(values):.1f} ms"
            if name != "llama.cpp":
                line += f"; {statistics.median(values) / peer[statistics.median]:.2f} and {min(values) / peer[min]:.2f} x llama.cpp's"
                if what == "token":
                    line += f"; {statistics.median([t['token'] / t['token floor'] for t in times[name]]):.2f} x the floor"
            print(line)


if __name__ == "__main__":
    main()
