"""What is known of a checkpoint without its weights: config, tensors, sizes, licence."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from typing import Any

from bloomery.checkpoints import pickle_header
from bloomery.checkpoints.choice import wanted_files, weight_files
from bloomery.checkpoints.safetensors_header import DTYPE_BITS
from bloomery.checkpoints.source import Connection, Entry, Source
from bloomery.checkpoints.sources.reading import read_bytes
from bloomery.checkpoints.splitting import presharded
from bloomery.checkpoints.streaming.stream_headers import read_headers
from bloomery.errors import CheckpointError, UnsupportedModelError

_CONNECTIONS = 8
FLOATS = ("F64", "F32", "F16", "BF16")
HEADS = ("lm_head.weight", "embed_out.weight")
# Families whose output head is a weight of its own unless config.json says otherwise; elsewhere it is tied.
_UNTIED = ("llama", "mistral", "qwen2", "qwen3", "gptj", "gpt_neox")
# Masks and frequencies that old files hold and today's models compute.
_COMPUTED = ("masked_bias", "inv_freq", "position_ids")


@dataclass(frozen=True)
class Tensor:
    """``dtype``: safetensors' name. ``shape``: of the whole, also where the files hold it split."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)

    @property
    def stored_bytes(self) -> int:
        """In the file."""
        return self.count * DTYPE_BITS[self.dtype] // 8


@dataclass(frozen=True)
class CheckpointFacts:
    """``tensors``: the parameters, each once, a tied head left out. ``tied``: whether the output head is the embedding.
    ``format``: safetensors, bin, or split (by ``bloomery shard``, for ``split_ranks`` ranks, in ``split_dtype``).
    ``weight_bytes``: of the files with the weights; ``fetched_bytes``: of all files that a server fetches."""

    uri: str
    config: Mapping[str, Any]
    tensors: tuple[Tensor, ...]
    tied: bool
    format: str
    weight_bytes: int
    fetched_bytes: int
    licence: str | None
    split_ranks: int | None = None
    split_dtype: str = ""

    @property
    def model_type(self) -> str:
        """As config.json says."""
        return str(self.config.get("model_type", ""))

    @property
    def parameters(self) -> int:
        """Tied weights once."""
        return sum(tensor.count for tensor in self.tensors)

    @property
    def stored_dtypes(self) -> Mapping[str, int]:
        """Bytes by format, the largest first."""
        found: dict[str, int] = {}
        for tensor in self.tensors:
            found[tensor.dtype] = found.get(tensor.dtype, 0) + tensor.stored_bytes
        return dict(sorted(found.items(), key=lambda item: -item[1]))


def read_facts(source: Source) -> CheckpointFacts:
    """The facts of what ``source`` holds. Reads config.json, an index, and the header of each file with weights.

    Raises CheckpointError, and UnsupportedModelError for weights whose headers do not say what they are.
    """
    entries = {entry.name: entry for entry in source.entries()}
    where = source.uri.rstrip("/")
    if "config.json" not in entries:
        raise CheckpointError(
            f"{where} holds no config.json but {', '.join(sorted(entries)[:8]) or 'nothing'}: name the directory of a "
            "transformers checkpoint"
        )
    with contextlib.closing(source.connect()) as connection:

        def read(name: str) -> bytes:
            return read_bytes(connection, entries[name])

        config = _json(read("config.json"), f"{where}/config.json")
        index = None
        if presharded.INDEX in entries:
            index = presharded.Index.from_json(read(presharded.INDEX), f"{where}/{presharded.INDEX}")
        elif presharded.CONFIG in entries:
            raise UnsupportedModelError(
                f"{where} was split by DeepSpeed ({presharded.CONFIG}), whose files do not say what tensors they hold "
                "before they are read whole: plan from the checkpoint that it was made of"
            )
        files = _weight_files(entries, read, where, index)
    tensors, form = _tensors(source, [entries[name] for name in files], index)
    parameters, tied = _parameters(tensors, config)
    return CheckpointFacts(
        uri=source.uri,
        config=config,
        tensors=parameters,
        tied=tied,
        format=form,
        weight_bytes=sum(entries[name].size for name in files),
        fetched_bytes=sum(entries[name].size for name in wanted_files(entries)),
        licence=source.licence,
        split_ranks=index.ranks if index else None,
        split_dtype=index.dtype if index else "",
    )


def _json(content: bytes, where: str) -> Mapping[str, Any]:
    try:
        found = json.loads(content)
    except ValueError as error:
        raise CheckpointError(f"{where} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{where} is no JSON object but {type(found).__name__}")
    return found


def _weight_files(
    entries: Mapping[str, Entry], read: Callable[[str], bytes], where: str, index: presharded.Index | None
) -> Sequence[str]:
    if index:
        named = sorted({part.file for tensor in index.tensors.values() for part in tensor.parts})
        if missing := [name for name in named if name not in entries]:
            raise CheckpointError(f"{where}/{presharded.INDEX} names {missing[0]}, which is not there: upload it again")
        return named
    found = weight_files(list(entries), read, where)
    if not found:
        raise CheckpointError(
            f"{where} holds no weights, neither *.safetensors nor pytorch_model*.bin, but "
            f"{', '.join(sorted(entries)[:8])}"
        )
    return found


def _tensors(source: Source, files: Sequence[Entry], index: presharded.Index | None) -> tuple[list[Tensor], str]:
    """All that the headers name, and the form they are in. Bytes that two names share are named once."""
    if index:
        scales = {f"{name}{presharded.SCALE}" for name, tensor in index.tensors.items() if tensor.int8}
        rows = index.tensors.items()
        return [Tensor(name, tensor.dtype, tensor.shape) for name, tensor in rows if name not in scales], "split"
    if files[0].name.endswith(".safetensors"):
        found = read_headers(source, files, _CONNECTIONS).found.values()
        return [Tensor(info.name, info.dtype, info.shape) for _, info in found], "safetensors"
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        described = list(pool.map(lambda entry: _of_pickle(source, entry), files))
    once: dict[Any, Tensor] = {}
    for entry, tensors in zip(files, described, strict=True):
        for name, tensor in tensors.items():
            key = (entry.name, tensor.storage, tensor.shape)
            if key not in once or once[key].name in HEADS:  # an embedding gives its name to a head tied to it
                once[key] = Tensor(name, tensor.dtype, tensor.shape)
    return list(once.values()), "bin"


def _of_pickle(source: Source, entry: Entry) -> Mapping[str, pickle_header.PickledTensor]:
    connection: Connection
    with contextlib.closing(source.connect()) as connection:

        def read_range(start: int, length: int) -> bytes:
            return read_bytes(connection, entry, start, length)

        return pickle_header.read(read_range, entry.size, f"{source.uri.rstrip('/')}/{entry.name}")


def _parameters(tensors: Sequence[Tensor], config: Mapping[str, Any]) -> tuple[tuple[Tensor, ...], bool]:
    """What a model keeps of them, and whether its head is its embedding."""
    parameters = [tensor for tensor in tensors if _is_parameter(tensor)]
    default = config.get("model_type") not in _UNTIED
    stored_head = any(tensor.name in HEADS for tensor in parameters)
    tied = bool(config.get("tie_word_embeddings", default)) or not stored_head
    if tied:
        parameters = [tensor for tensor in parameters if tensor.name not in HEADS]
    return tuple(parameters), tied


def _is_parameter(tensor: Tensor) -> bool:
    if tensor.name.rpartition(".")[2] in _COMPUTED:
        return False
    # GPT-2's and GPT-Neo's causal masks, [1, 1, positions, positions], are called attn.bias.
    if tensor.name.endswith("bias") and len(tensor.shape) == 4:
        return False
    return tensor.dtype in FLOATS or tensor.dtype.startswith("F8") or tensor.dtype == "I8"
