#!/usr/bin/env python3
"""Makes tests/data/formats/qwen-v1-gptq: a small QWenLMHeadModel, adapters and reference outputs, in float64 with numpy alone.

  python3 make_qwen_v1.py [OUTPUT_DIRECTORY]

Written from the formulas of Qwen-14B v1's modeling_qwen.py: fused c_attn (rows [Q; K; V]), MLP c_proj(silu(w2 x) * (w1 x)),
dynamic NTK (the base follows from the prompt's length and is kept while decoding) and log-n attention beyond seq_length.
"""
import json
import math
import os
import re
import shutil
import sys

import numpy as np

import packing

NAME = "qwen-v1-gptq"
HIDDEN, LAYERS, HEADS, HEAD_DIM, MLP, VOCAB, TRAINED = 128, 2, 2, 64, 160, 96, 16
CONFIG = {"architectures": ["QWenLMHeadModel"], "model_type": "qwen", "hidden_size": HIDDEN, "num_hidden_layers": LAYERS,
          "num_attention_heads": HEADS, "kv_channels": HEAD_DIM, "intermediate_size": 2 * MLP, "vocab_size": VOCAB,
          "layer_norm_epsilon": 1e-6, "rotary_emb_base": 10000, "rotary_pct": 1.0, "seq_length": TRAINED,
          "max_position_embeddings": 256, "no_bias": True, "scale_attn_weights": True, "tie_word_embeddings": False,
          "use_dynamic_ntk": True, "use_logn_attn": True, "eos_token_id": VOCAB - 1, "fp16": True,
          "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": True, "sym": True}}
MODULES = {"attn.c_attn": (3 * HIDDEN, HIDDEN), "attn.c_proj": (HIDDEN, HIDDEN), "mlp.w1": (MLP, HIDDEN), "mlp.w2": (MLP, HIDDEN),
           "mlp.c_proj": (HIDDEN, MLP)}


def make_checkpoint(rng):
    """Tensors as saved, and every weight in float64."""
    tensors, weights = {}, {}

    def floats(name, values):
        tensors[name] = values.astype(np.float16)
        weights[name] = tensors[name].astype(np.float64)

    floats("transformer.wte.weight", rng.normal(0, 1, (VOCAB, HIDDEN)))
    floats("lm_head.weight", rng.normal(0, 0.25, (VOCAB, HIDDEN)))
    floats("transformer.ln_f.weight", 1 + rng.normal(0, 0.2, HIDDEN))
    for layer in range(LAYERS):
        prefix = f"transformer.h.{layer}."
        for norm in ("ln_1", "ln_2"):
            floats(prefix + norm + ".weight", 1 + rng.normal(0, 0.2, HIDDEN))
        floats(prefix + "attn.c_attn.bias", rng.normal(0, 0.3, 3 * HIDDEN))
        for module, shape in MODULES.items():
            packed, weight = packing.gptq(rng.normal(0, 1.3 / math.sqrt(shape[1]), shape), 32, True, rng, act_order=True)
            tensors.update({prefix + module + "." + key: value for key, value in packed.items()})
            if module != "attn.c_attn":  # as AutoGPTQ writes them
                tensors[prefix + module + ".bias"] = np.zeros(shape[0], np.float16)
            weights[prefix + module] = weight
    return tensors, weights


def adapter_config(rank, alpha, targets, **settings):
    return {"peft_type": "LORA", "task_type": "CAUSAL_LM", "bias": "none", "fan_in_fan_out": False, "inference_mode": True,
            "init_lora_weights": True, "lora_dropout": 0.0, "modules_to_save": None, "use_rslora": False, "use_dora": False,
            "layers_to_transform": None, "rank_pattern": {}, "alpha_pattern": {}, "r": rank, "lora_alpha": alpha,
            "target_modules": targets, **settings}


def make_adapter(config, weights, rng):
    """A, B and (DoRA) magnitudes by module: c_proj names both the attention's and the MLP's."""
    tensors, modules = {}, {}
    for layer in range(LAYERS):
        for module, (outputs, inputs) in MODULES.items():
            if module.split(".")[-1] not in config["target_modules"]:
                continue
            name = f"transformer.h.{layer}.{module}"
            rank = next((r for key, r in config["rank_pattern"].items() if re.match(rf"(.*\.)?({key})$", name)), config["r"])
            a = rng.normal(0, 0.2, (rank, inputs)).astype(np.float16)
            b = rng.normal(0, 0.1, (outputs, rank)).astype(np.float16)
            tensors[f"base_model.model.{name}.lora_A.weight"], tensors[f"base_model.model.{name}.lora_B.weight"] = a, b
            scale = config["lora_alpha"] / (math.sqrt(rank) if config["use_rslora"] else rank)
            a, b = a.astype(np.float64), b.astype(np.float64)
            factor = np.ones(outputs)
            if config["use_dora"]:
                norm = np.linalg.norm(weights[name], axis=1)
                magnitude = (norm * rng.uniform(0.7, 1.3, outputs)).astype(np.float16)
                tensors[f"base_model.model.{name}.lora_magnitude_vector"] = magnitude
                factor = magnitude.astype(np.float64) / np.linalg.norm(weights[name] + scale * b @ a, axis=1)
            modules[name] = (a, b, scale, factor)
    return tensors, modules


def rms(x, weight):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + CONFIG["layer_norm_epsilon"]) * weight


def forward(weights, modules, ids, prompt_size):
    """Log-probabilities [len(ids), VOCAB]; the rotary base is that of the prompt."""
    n = len(ids)
    alpha = max(2 ** math.ceil(math.log2(prompt_size / TRAINED) + 1) - 1, 1)
    base = CONFIG["rotary_emb_base"] * alpha ** (HEAD_DIM / (HEAD_DIM - 2))
    angles = np.arange(n)[:, None] * base ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM)[None]
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    log_n = np.array([max(math.log(i) / math.log(TRAINED), 1) if i > TRAINED else 1 for i in range(1, n + 1)])

    def linear(name, x):
        y = x @ weights[name].T
        if name in modules:
            a, b, scale, factor = modules[name]
            y = factor * (y + scale * (x @ a.T) @ b.T)
        return y + weights[name + ".bias"] if name + ".bias" in weights else y

    def rotate(x):
        half = HEAD_DIM // 2
        first, second = x[..., :half], x[..., half:]
        return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)

    x = weights["transformer.wte.weight"][ids]
    for layer in range(LAYERS):
        prefix = f"transformer.h.{layer}."
        h = rms(x, weights[prefix + "ln_1.weight"])
        q, k, v = (part.reshape(n, HEADS, HEAD_DIM) for part in np.split(linear(prefix + "attn.c_attn", h), 3, -1))
        q, k = rotate(q) * log_n[:, None, None], rotate(k)
        scores = np.einsum("ihd,jhd->hij", q, k) / math.sqrt(HEAD_DIM) + np.triu(np.full((n, n), -np.inf), 1)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        x = x + linear(prefix + "attn.c_proj", np.einsum("hij,jhd->ihd", scores, v).reshape(n, HIDDEN))
        h = rms(x, weights[prefix + "ln_2.weight"])
        gate = linear(prefix + "mlp.w2", h)
        x = x + linear(prefix + "mlp.c_proj", gate / (1 + np.exp(-gate)) * linear(prefix + "mlp.w1", h))
    logits = rms(x, weights["transformer.ln_f.weight"]) @ weights["lm_head.weight"].T
    top = logits.max(-1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True))


def main():
    output = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "formats")
    directory = os.path.join(output, NAME)
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    rng = np.random.default_rng(14)
    tensors, weights = make_checkpoint(rng)
    packing.write_safetensors(os.path.join(directory, "model.safetensors"), tensors)
    with open(os.path.join(directory, "config.json"), "w") as file:
        json.dump(CONFIG, file, indent=1)
    adapters = {
        "official-targets": adapter_config(3, 6, ["c_attn", "c_proj", "w1", "w2"], rank_pattern={"mlp.c_proj": 2}),
        "dora": adapter_config(2, 3, ["c_attn", "c_proj"], use_dora=True, use_rslora=True),
    }
    prompts = [[int(t) for t in rng.integers(0, VOCAB, size)] for size in (1, 14, 50)]  # below, across, beyond seq_length
    cases = []
    for adapter in [None] + list(adapters):
        modules = {}
        if adapter is not None:
            path = os.path.join(directory, "adapters", adapter)
            os.makedirs(path)
            saved, modules = make_adapter(adapters[adapter], weights, rng)
            packing.write_safetensors(os.path.join(path, "adapter_model.safetensors"), saved)
            with open(os.path.join(path, "adapter_config.json"), "w") as file:
                json.dump(adapters[adapter], file, indent=1)
        run = lambda ids, size: forward(weights, modules, ids, size)
        cases += [packing.case_of(prompt, adapter, run, 10) for prompt in prompts]
    packing.write_golden(os.path.join(directory, "golden.json"), NAME, cases)
    size = sum(os.path.getsize(os.path.join(d, f)) for d, _, files in os.walk(directory) for f in files)
    print(f"{NAME}: {len(cases)} cases, {size} bytes")


if __name__ == "__main__":
    main()
