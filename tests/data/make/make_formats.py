#!/usr/bin/env python3
"""Makes small checkpoints, adapters and reference outputs of tests/data/formats with transformers and peft, float32.

  python3 -m venv v && v/bin/pip install numpy torch transformers peft && v/bin/python make_formats.py [OUTPUT_DIRECTORY]

The references run on plain linear layers that hold the de-quantised weights; adapters are saved and read again by peft, so
they are the files that peft writes. qwen-v1-gptq is made by make_qwen_v1.py.
Last made with torch 2.15.0, transformers 5.24.0, peft 0.21.2.
"""
import json
import os
import shutil
import sys

import numpy as np
import peft
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.numpy import load_file

import packing

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
HIDDEN, LAYERS, HEADS, HEAD_DIM, VOCAB = 128, 2, 2, 128, 96


def config_of(architecture, kv_heads, intermediate):
    return {"architectures": [architecture], "model_type": architecture[:5].lower(), "hidden_act": "silu", "vocab_size": VOCAB,
            "hidden_size": HIDDEN, "intermediate_size": intermediate, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
            "num_key_value_heads": kv_heads, "head_dim": HEAD_DIM, "max_position_embeddings": 512, "rms_norm_eps": 1e-6,
            "rope_theta": 1000000.0, "tie_word_embeddings": False, "use_sliding_window": False, "attention_bias": False,
            "bos_token_id": None, "eos_token_id": VOCAB - 1, "torch_dtype": "float16"}


def build(config, pack, rng):
    """The checkpoint's tensors, and the float32 model that they stand for."""
    kind = transformers.Qwen3Config if config["model_type"] == "qwen3" else transformers.Qwen2Config
    causal = transformers.Qwen3ForCausalLM if config["model_type"] == "qwen3" else transformers.Qwen2ForCausalLM
    settings = {k: v for k, v in config.items() if k not in ("architectures", "model_type", "torch_dtype", "quantization_config",
                                                            "rope_theta")}
    model = causal(kind(**settings, rope_parameters={"rope_type": "default", "rope_theta": config["rope_theta"]})).float().eval()
    state, tensors = {}, {}
    for name, parameter in model.state_dict().items():
        shape = tuple(parameter.shape)
        if "proj.weight" in name:
            module = name[: -len(".weight")]
            packed, weight = pack(rng.normal(0, 1.3 / np.sqrt(shape[1]), shape))
            tensors.update({module + "." + key: value for key, value in packed.items()})
            state[name] = torch.from_numpy(weight.astype(np.float32))
            continue
        if name.endswith("norm.weight"):
            values = 1 + rng.normal(0, 0.2, shape)
        elif name.endswith("bias"):
            values = rng.normal(0, 0.3, shape)
        else:
            values = rng.normal(0, 0.25 if name == "lm_head.weight" else 1, shape)
        tensors[name] = values.astype(np.float16)
        state[name] = torch.from_numpy(tensors[name].astype(np.float32))
    model.load_state_dict(state)
    return tensors, model


def add_adapter(directory, make_model, seed, **settings):
    """Saves an adapter with random tensors that halves can hold; peft starts B at zero."""
    torch.manual_seed(seed)
    adapter = get_peft_model(make_model(), LoraConfig(task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for name, parameter in adapter.named_parameters():
            if "lora_magnitude_vector" in name:
                parameter.mul_(0.7 + 0.6 * torch.rand_like(parameter))
            elif "lora_A" in name or "lora_embedding_A" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.2)
            elif "lora_B" in name or "lora_embedding_B" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.1)
            else:
                continue
            parameter.copy_(parameter.half().float())
    adapter.save_pretrained(directory)
    readme = os.path.join(directory, "README.md")
    if os.path.exists(readme):
        os.remove(readme)
    path = os.path.join(directory, "adapter_model.safetensors")
    packing.write_safetensors(path, {k: v.astype(np.float16) for k, v in sorted(load_file(path).items())})


def log_probabilities(model):
    def run(ids, _):
        with torch.no_grad():
            return torch.log_softmax(model(torch.tensor([ids])).logits[0].double(), -1).numpy()
    return run


def make(output, name, config, pack, adapters, seed):
    rng = np.random.default_rng(seed)
    directory = os.path.join(output, name)
    shutil.rmtree(directory, ignore_errors=True)
    os.makedirs(directory)
    tensors, model = build(config, pack(rng), rng)
    packing.write_safetensors(os.path.join(directory, "model.safetensors"), tensors)
    with open(os.path.join(directory, "config.json"), "w") as file:
        json.dump(config, file, indent=1)
    state = model.state_dict()

    def fresh():
        copy = type(model)(model.config).float().eval()
        copy.load_state_dict(state)
        return copy

    prompts = [[int(t) for t in rng.integers(0, VOCAB, size)] for size in (1, 6, 40)]
    cases = []
    for number, adapter in enumerate([None] + list(adapters)):
        subject = model
        if adapter is not None:
            path = os.path.join(directory, "adapters", adapter)
            add_adapter(path, fresh, seed * 100 + number, **adapters[adapter])
            subject = PeftModel.from_pretrained(fresh(), path).eval()
        cases += [packing.case_of(prompt, adapter, log_probabilities(subject), 10) for prompt in prompts]
    packing.write_golden(os.path.join(directory, "golden.json"), name, cases)
    size = sum(os.path.getsize(os.path.join(d, f)) for d, _, files in os.walk(directory) for f in files)
    print(f"{name}: {len(cases)} cases, {size} bytes")


def main():
    output = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "formats")
    print("torch", torch.__version__, "transformers", transformers.__version__, "peft", peft.__version__)
    gptq = {"quant_method": "gptq", "bits": 4, "desc_act": False, "damp_percent": 0.01}

    config = config_of("Qwen2ForCausalLM", 1, 160)
    config["quantization_config"] = {**gptq, "group_size": 32, "sym": False, "checkpoint_format": "gptq_v2"}
    make(output, "qwen2.5-gptq-v2", config, lambda rng: lambda w: packing.gptq(w, 32, False, rng, version=2), {
        "dora-all": dict(r=3, lora_alpha=6, target_modules=ALL, use_dora=True),
        "dora-rslora": dict(r=4, lora_alpha=4, target_modules=["q_proj", "down_proj"], use_dora=True, use_rslora=True,
                            rank_pattern={"down_proj": 5}, alpha_pattern={"q_proj": 9}),
        "last-layer": dict(r=3, lora_alpha=8, target_modules=["v_proj", "up_proj"], layers_to_transform=[1]),
    }, 1)

    config = config_of("Qwen3ForCausalLM", 2, 96)
    weights = {"num_bits": 4, "type": "int", "symmetric": False, "strategy": "group", "group_size": 32, "dynamic": False,
               "actorder": "group"}
    config["quantization_config"] = {"quant_method": "compressed-tensors", "format": "pack-quantized",
                                     "quantization_status": "compressed", "ignore": ["lm_head"], "kv_cache_scheme": None,
                                     "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights,
                                                                   "input_activations": None, "output_activations": None}}}
    make(output, "qwen3-compressed-tensors", config, lambda rng: lambda w: packing.compressed(w, 32, False, rng, act_order=True), {
        "all-linear": dict(r=5, lora_alpha=10, target_modules="all-linear"),
        "dora-attention": dict(r=2, lora_alpha=4, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], use_dora=True),
    }, 2)

    config = config_of("Qwen2ForCausalLM", 2, 112)
    config["quantization_config"] = {**gptq, "group_size": -1, "sym": True}
    make(output, "qwen2-gptq-one-group", config, lambda rng: lambda w: packing.gptq(w, -1, True, rng), {
        "embedding": dict(r=4, lora_alpha=8, target_modules=["embed_tokens", "v_proj"]),
        "lm-head": dict(r=3, lora_alpha=6, target_modules=["lm_head", "down_proj"]),
        "both": dict(r=2, lora_alpha=5, target_modules=["embed_tokens", "lm_head"]),
    }, 3)


if __name__ == "__main__":
    main()
