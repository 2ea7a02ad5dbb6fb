"""Quantises random weights and packs them as GPTQ, AWQ and compressed-tensors checkpoints do; writes safetensors.

numpy only. Every function returns the tensors of one module and the float64 weight W [outputs, inputs] that they stand for,
exactly (q - zero) * scale.
"""
import json
import struct

import numpy as np


def quantise(weight, group_size, symmetric, rng, act_order=False):
    """q [inputs, outputs], zero [groups, outputs], scale (float16) [groups, outputs], group_of [inputs]."""
    outputs, inputs = weight.shape
    size = inputs if group_size < 0 else group_size
    groups = -(-inputs // size)
    group_of = np.arange(inputs) // size
    if act_order:
        group_of = rng.permutation(group_of)
    q = np.zeros((inputs, outputs), np.int64)
    zero = np.full((groups, outputs), 8, np.int64)
    scale = np.zeros((groups, outputs), np.float16)
    for g in range(groups):
        part = weight.T[group_of == g]
        if symmetric:
            scale[g] = np.maximum(np.abs(part).max(0) / 7.5, 1e-4)
        else:
            low, high = np.minimum(part.min(0), 0), np.maximum(part.max(0), 0)
            scale[g] = np.maximum((high - low) / 15, 1e-4)
            zero[g] = np.clip(np.rint(-low / scale[g].astype(np.float64)), 1, 15)
        q[group_of == g] = np.clip(np.rint(part / scale[g].astype(np.float64)) + zero[g], 0, 15)
    return q, zero, scale, group_of


def dequantise(q, zero, scale, group_of):
    return ((q - zero[group_of]) * scale.astype(np.float64)[group_of]).T


def words(values, axis, order=range(8)):
    """Packs eight 4-bit values along an axis into one int32, value order[i] as nibble i."""
    values = np.moveaxis(values.astype(np.uint32), axis, -1)
    pad = -values.shape[-1] % 8
    values = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, pad)])
    eight = values.reshape(values.shape[:-1] + (-1, 8))
    packed = np.zeros(eight.shape[:-1], np.uint32)
    for nibble, value in enumerate(order):
        packed |= eight[..., value] << np.uint32(4 * nibble)
    return np.ascontiguousarray(np.moveaxis(packed, -1, axis)).view(np.int32)


def gptq(weight, group_size, symmetric, rng, version=1, act_order=False):
    q, zero, scale, group_of = quantise(weight, group_size, symmetric, rng, act_order)
    tensors = {"qweight": words(q, 0), "qzeros": words(zero - (1 if version == 1 else 0), 1), "scales": scale,
               "g_idx": group_of.astype(np.int32)}
    return tensors, dequantise(q, zero, scale, group_of)


def compressed(weight, group_size, symmetric, rng, act_order=False):
    q, zero, scale, group_of = quantise(weight, group_size, symmetric, rng, act_order)
    tensors = {"weight_packed": words(q.T, 1), "weight_scale": np.ascontiguousarray(scale.T),
               "weight_shape": np.array(weight.shape, np.int64)}
    if not symmetric:
        tensors["weight_zero_point"] = words(zero.T, 0)
    if act_order:
        tensors["weight_g_idx"] = group_of.astype(np.int32)
    return tensors, dequantise(q, zero, scale, group_of)


NAMES = {np.dtype(np.float16): "F16", np.dtype(np.float32): "F32", np.dtype(np.int32): "I32", np.dtype(np.int64): "I64"}


def write_safetensors(path, tensors):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, tensor in tensors.items():
        raw = np.ascontiguousarray(tensor).tobytes()
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def write_golden(path, model, cases):
    """One case per line, so that a change shows as one."""
    lines = ",\n".join("  " + json.dumps(case, separators=(",", ":")) for case in cases)
    with open(path, "w") as file:
        file.write('{"model": %s, "cases": [\n%s\n]}\n' % (json.dumps(model), lines))


def case_of(prompt, adapter, log_probabilities, steps):
    """Decodes greedily. log_probabilities(ids, prompt_size) gives float [len(ids), vocabulary]."""
    ids, top5, prompt_logprobs = list(prompt), [], None
    for _ in range(steps):
        table = log_probabilities(ids, len(prompt))
        if prompt_logprobs is None:
            prompt_logprobs = [None] + [round(float(table[i, ids[i + 1]]), 5) for i in range(len(prompt) - 1)]
        best = np.argsort(-table[-1], kind="stable")[:5]
        top5.append([[int(t), round(float(table[-1, t]), 5)] for t in best])
        ids.append(int(best[0]))
    return {"adapter": adapter, "prompt_ids": list(prompt), "prompt_logprobs": prompt_logprobs,
            "token_ids": ids[len(prompt):], "top5": top5}
