"""Checkpoints of any size without weights: config.json, and safetensors files that have a header and then holes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

_BYTES = {"F32": 4, "F16": 2, "BF16": 2}


def weightless(
    directory: Path,
    config: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str = "F16",
    files: int = 4,
) -> Path:
    """Write it into ``directory``; the files are as long as real ones and take no room on the disk."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    names = list(shapes)
    step = -(-len(names) // files)
    where: dict[str, str] = {}
    for number in range(files):
        part = names[number * step : (number + 1) * step]
        name = f"model-{number + 1:05d}-of-{files:05d}.safetensors"
        where |= dict.fromkeys(part, name)
        _write(directory / name, {tensor: shapes[tensor] for tensor in part}, dtype)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return directory


def _write(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str) -> None:
    fields: dict[str, Any] = {}
    position = 0
    for name, shape in shapes.items():
        end = position + prod(shape) * _BYTES[dtype]
        fields[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, end]}
        position = end
    header = json.dumps(fields).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        os.truncate(file.fileno(), 8 + len(header) + position)


def bloom_176b(directory: Path) -> Path:
    """bigscience/bloom, with the names and the config of its files: 70 layers, 14336 wide, 112 heads."""
    hidden, layers, vocabulary = 14336, 70, 250880
    norm = {"weight": (hidden,), "bias": (hidden,)}
    shapes: dict[str, tuple[int, ...]] = {"word_embeddings.weight": (vocabulary, hidden)}
    modules: dict[str, dict[str, tuple[int, ...]]] = {"word_embeddings_layernorm": norm}
    for layer in range(layers):
        modules |= {
            f"h.{layer}.input_layernorm": norm,
            f"h.{layer}.self_attention.query_key_value": _linear(3 * hidden, hidden),
            f"h.{layer}.self_attention.dense": _linear(hidden, hidden),
            f"h.{layer}.post_attention_layernorm": norm,
            f"h.{layer}.mlp.dense_h_to_4h": _linear(4 * hidden, hidden),
            f"h.{layer}.mlp.dense_4h_to_h": _linear(hidden, 4 * hidden),
        }
    modules["ln_f"] = norm
    shapes |= _flat(modules)
    config = {
        "model_type": "bloom",
        "architectures": ["BloomForCausalLM"],
        "hidden_size": hidden,
        "n_head": 112,
        "n_layer": layers,
        "vocab_size": vocabulary,
        "seq_length": 2048,
        "torch_dtype": "bfloat16",
    }
    return weightless(directory, config, shapes, "BF16", files=72)


def opt_30b(directory: Path) -> Path:
    """facebook/opt-30b: 48 layers, 7168 wide, 56 heads."""
    hidden, layers, inner, vocabulary = 7168, 48, 28672, 50272
    norm = {"weight": (hidden,), "bias": (hidden,)}
    shapes: dict[str, tuple[int, ...]] = {
        "model.decoder.embed_tokens.weight": (vocabulary, hidden),
        "model.decoder.embed_positions.weight": (2050, hidden),
    }
    modules: dict[str, dict[str, tuple[int, ...]]] = {}
    for layer in range(layers):
        block = f"model.decoder.layers.{layer}"
        modules |= {f"{block}.self_attn.{name}_proj": _linear(hidden, hidden) for name in ("q", "k", "v", "out")}
        modules |= {
            f"{block}.self_attn_layer_norm": norm,
            f"{block}.fc1": _linear(inner, hidden),
            f"{block}.fc2": _linear(hidden, inner),
            f"{block}.final_layer_norm": norm,
        }
    modules["model.decoder.final_layer_norm"] = norm
    shapes |= _flat(modules)
    config = {
        "model_type": "opt",
        "architectures": ["OPTForCausalLM"],
        "hidden_size": hidden,
        "word_embed_proj_dim": hidden,
        "ffn_dim": inner,
        "num_attention_heads": 56,
        "num_hidden_layers": layers,
        "vocab_size": vocabulary,
        "max_position_embeddings": 2048,
        "do_layer_norm_before": True,
        "torch_dtype": "float16",
    }
    return weightless(directory, config, shapes, "F16", files=7)


def _linear(outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {"weight": (outputs, inputs), "bias": (outputs,)}


def _flat(modules: Mapping[str, Mapping[str, tuple[int, ...]]]) -> dict[str, tuple[int, ...]]:
    return {f"{module}.{field}": shape for module, fields in modules.items() for field, shape in fields.items()}
