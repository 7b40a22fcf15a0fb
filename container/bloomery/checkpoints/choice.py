"""Which files of a checkpoint are worth fetching."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

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
