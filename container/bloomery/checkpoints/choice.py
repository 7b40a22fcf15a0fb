"""Which files of a checkpoint are worth fetching, and which hold the weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

from bloomery.errors import CheckpointError

# Weights of other frameworks, which no engine here reads, and what only training goes on from.
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
    "openvino/*",
    "training_args.bin",
    "optimizer.*",
    "scheduler.pt",
    "rng_state*.pth",
)
# The same weights once more, when there are safetensors beside them; these are also pickles, which can run code.
DUPLICATES = ("*.bin", "*.bin.index.json", "*.pth")
# The same weights once more, as the model's makers wrote them, when they are there under transformers' names.
ORIGINALS = ("consolidated*.safetensors", "consolidated.safetensors.index.json")
ORIGINAL_FOLDER = "original/*"
# Of tools, not of the model.
HIDDEN = (".*", "*/.*")
# What a fetch itself leaves, where a fetched directory was uploaded.
OWN = (".fetched.json", ".fetching*")


def wanted_files(names: Iterable[str], allow_patterns: Sequence[str] | None = None) -> list[str]:
    """The names that ``allow_patterns`` allows; without patterns, all but hidden, foreign and duplicate ones."""
    names = sorted(names)
    if allow_patterns:
        return [name for name in names if _matches(name, allow_patterns) and not _matches(name, OWN)]
    safe = {_folder(name) for name in names if name.endswith(".safetensors")}
    transformers = {_folder(name) for name in names if fnmatchcase(_file(name), "model*.safetensors")}

    def is_twice(name: str) -> bool:
        if _folder(name) in safe and _matches(_file(name), DUPLICATES):
            return True
        if _folder(name) in transformers and _matches(_file(name), ORIGINALS):
            return True
        return bool(safe) and fnmatchcase(name, ORIGINAL_FOLDER)

    return [name for name in names if not _matches(name, (*FOREIGN, *HIDDEN)) and not is_twice(name)]


def _folder(name: str) -> str:
    return name.rpartition("/")[0]


def _file(name: str) -> str:
    return name.rpartition("/")[2]


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


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
