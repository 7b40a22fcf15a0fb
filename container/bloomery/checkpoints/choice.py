"""Which files of a checkpoint are worth fetching, and which hold the weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from bloomery.errors import CheckpointError

# Weights of other frameworks, which no engine here reads.
FOREIGN = (
    "*.h5",
    "*.msgpack",
    "*.ot",
    "*.tflite",
    "*.onnx",
    "*.onnx_data",
    "*.gguf",
    "*.mlmodel",
    "coreml/*",
    "onnx/*",
)
# The same weights once more, when there are safetensors; these are also pickles, which can run code.
DUPLICATES = ("*.bin", "*.bin.index.json", "*.pth", "original/*")


def ignored_patterns(names: Iterable[str]) -> tuple[str, ...]:
    """The patterns of files that a model directory with these files does not need."""
    return (*FOREIGN, *DUPLICATES) if any(name.endswith(".safetensors") for name in names) else FOREIGN


def wanted_files(names: Iterable[str], allow_patterns: Sequence[str] | None = None) -> list[str]:
    """The names that ``allow_patterns`` allows; without patterns, all but foreign and duplicate weights."""
    names = sorted(names)
    if allow_patterns:
        return [name for name in names if any(fnmatchcase(name, pattern) for pattern in allow_patterns)]
    ignored = ignored_patterns(names)
    return [name for name in names if not any(fnmatchcase(name, pattern) for pattern in ignored)]


_LAYOUTS = (
    ("model.safetensors.index.json", "model.safetensors", ".safetensors"),
    ("pytorch_model.bin.index.json", "pytorch_model.bin", ".bin"),
)


def weight_files(names: Sequence[str], read_file: Callable[[str], bytes], where: str) -> list[str]:
    """The files among ``names`` that hold the tensors: safetensors before ``.bin``, an index before all that lies
    around; none when there are neither. Raises CheckpointError for an index that is damaged or names what is not there.
    """
    for index, single, ending in _LAYOUTS:
        if index in names:
            found = _named_in(read_file(index), f"{where.rstrip('/')}/{index}")
            if missing := [name for name in found if name not in names]:
                raise CheckpointError(
                    f"{where.rstrip('/')}/{index} names {missing[0]}, which is not there: upload it again"
                )
            return found
        if single in names:
            return [single]
        if loose := sorted(name for name in names if name.endswith(ending) and "/" not in name):
            return loose
    return []


def _named_in(index: bytes, where: str) -> list[str]:
    try:
        return sorted(set(json.loads(index)["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{where} is not a checkpoint index with a weight_map: {error!r}") from error
