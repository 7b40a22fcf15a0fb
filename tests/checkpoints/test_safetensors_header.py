from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from bloomery.checkpoints import safetensors_header
from bloomery.errors import CheckpointError

GOOD: dict[str, Any] = {
    "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
    "b": {"dtype": "BF16", "shape": [3], "data_offsets": [16, 22]},
}


def write(path: Path, document: object, data: int = 22) -> Path:
    header = document if isinstance(document, bytes) else json.dumps(document).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(data))
    return path


def test_what_the_library_wrote_is_read_as_it_lies(tmp_path: Path) -> None:
    tensors = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "scalar": np.array(7, dtype=np.int64)}
    tensors["empty"] = np.zeros((0, 4), dtype=np.float16)
    path = tmp_path / "model.safetensors"
    save_file(tensors, path, metadata={"format": "pt"})
    header = safetensors_header.of_file(path)
    data = path.read_bytes()
    assert header.metadata == {"format": "pt"}
    assert set(header.tensors) == set(tensors)
    for name, info in header.tensors.items():
        assert info.shape == tensors[name].shape
        assert data[info.start : info.start + info.length] == tensors[name].tobytes()


def test_a_header_that_is_longer_than_the_first_read_is_read_whole(tmp_path: Path) -> None:
    document = {f"tensor.{i}": {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i in range(4000)}
    header = safetensors_header.of_file(write(tmp_path / "many.safetensors", document, 4000))
    assert len(header.tensors) == 4000
    assert header.length > 200_000


def test_padding_after_the_header_is_part_of_it(tmp_path: Path) -> None:
    header = safetensors_header.of_file(write(tmp_path / "padded", json.dumps(GOOD).encode() + b"   "))
    assert list(header.tensors) == ["a", "b"]


def changed(name: str, **fields: object) -> dict[str, Any]:
    return {**GOOD, name: {**GOOD[name], **fields}}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"{", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[]", "no JSON object"),
        (b'{"a": 1, "a": 2}', "'a' is there twice"),
        ({**GOOD, "__metadata__": {"format": 1}}, "no object of strings"),
        ({**GOOD, "c": []}, "'c' is described by no JSON object"),
        (changed("a", dtype="F33"), "unknown dtype 'F33'"),
        (changed("a", dtype=["F32"]), "unknown dtype"),
        (changed("a", shape=[2, -2]), r"impossible shape \[2, -2\]"),
        (changed("a", shape=[True, 4]), "impossible shape"),
        (changed("a", data_offsets=[0, 16.0]), "impossible data_offsets"),
        (changed("a", data_offsets=[0]), "impossible data_offsets"),
        (changed("a", shape=[1 << 40, 1 << 40]), "cannot have the 16 bytes"),
        (changed("b", data_offsets=[12, 18]), "'b' begins at byte .* and overlaps the tensor before it"),
        (changed("b", data_offsets=[17, 23]), "leaves a gap"),
        ({"a": GOOD["a"]}, "its tensors end at byte"),
    ],
)
def test_a_wrong_header_is_refused_with_what_is_wrong(tmp_path: Path, document: object, message: str) -> None:
    path = write(tmp_path / "model.safetensors", document)
    with pytest.raises(CheckpointError, match=f"model.safetensors is damaged.*{message}"):
        safetensors_header.of_file(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it has 0 bytes"),
        (b"12345", "it has 5 bytes"),
        (struct.pack("<Q", 1 << 60), "100000000 are the most"),
        (struct.pack("<Q", 5000) + b"{}", "5000 bytes, and the whole file has 10"),
    ],
)
def test_a_length_that_cannot_be_is_refused_before_anything_is_allocated(
    tmp_path: Path, data: bytes, message: str
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=message):
        safetensors_header.of_file(path)


def test_a_git_lfs_pointer_is_named_as_one(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 12345\n")
    with pytest.raises(CheckpointError, match="it is a git-lfs pointer of a few lines, not the weights"):
        safetensors_header.of_file(path)
