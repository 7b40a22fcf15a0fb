"""Which files of a checkpoint are worth fetching."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

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
