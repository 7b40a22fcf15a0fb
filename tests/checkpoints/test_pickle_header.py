"""The tensors of torch's own files, without torch and without their numbers."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from bloomery.checkpoints import pickle_header
from bloomery.errors import CheckpointError


def reader(data: bytes, reads: list[tuple[int, int]] | None = None) -> Callable[[int, int], bytes]:
    def read_range(start: int, length: int) -> bytes:
        if reads is not None:
            reads.append((start, length))
        return data[start : start + length]

    return read_range


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def archive(description: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as written:
        written.writestr("archive/data.pkl", description)
    return file.getvalue()


def test_names_formats_and_shapes() -> None:
    linear = torch.nn.Linear(3, 5)
    state = OrderedDict(
        half=torch.zeros(2, 3, dtype=torch.float16),
        brain=torch.zeros(4, dtype=torch.bfloat16),
        whole=torch.zeros((), dtype=torch.int64),
        parameter=linear.weight,
        **linear.state_dict(),
    )
    data = saved(state)
    found = pickle_header.read(reader(data), len(data), "model.bin")
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in found.items()} == {
        "half": ("F16", (2, 3)),
        "brain": ("BF16", (4,)),
        "whole": ("I64", ()),
        "parameter": ("F32", (5, 3)),
        "weight": ("F32", (5, 3)),
        "bias": ("F32", (5,)),
    }


def test_a_models_own_state_dictionary_with_its_metadata() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3))
    data = saved(model.state_dict())
    assert set(pickle_header.read(reader(data), len(data), "x")) == {"0.weight", "0.bias", "1.weight", "1.bias"}


def test_tensors_that_share_their_bytes_are_known_as_such() -> None:
    table = torch.zeros(10, 4)
    data = saved({"embedding": table, "head": table, "part": table[5:], "other": torch.zeros(10, 4)})
    found = pickle_header.read(reader(data), len(data), "x")
    assert found["embedding"].storage == found["head"].storage
    assert found["part"].storage != found["embedding"].storage != found["other"].storage


def test_little_is_read_of_a_large_file() -> None:
    data = saved({f"layer{index}": torch.zeros(1 << 20) for index in range(8)})  # 32 MiB
    reads: list[tuple[int, int]] = []
    found = pickle_header.read(reader(data, reads), len(data), "x")
    assert len(found) == 8
    assert sum(length for _, length in reads) < 400_000


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return Path.touch, (Path("harmed"),)  # type: ignore[return-value]


def test_nothing_of_a_pickle_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = archive(pickle.dumps({"weight": Harmful()}))
    with pytest.raises(CheckpointError, match="which is no part of a dictionary of tensors"):
        pickle_header.read(reader(data), len(data), "model.bin")
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no zip archive"),
        (b"\x80\x02" + bytes(1000), "torch before 1.6"),
        (archive(b"\x80\x02]."), "no dictionary"),
        (archive(b"\x80\x02}q"), "cannot be read"),
        (archive(b"garbage"), "cannot be read"),
        (saved([1, 2]), "no dictionary"),
    ],
)
def test_what_is_no_dictionary_of_tensors_is_refused_in_words(data: bytes, words: str) -> None:
    with pytest.raises(CheckpointError, match=words) as caught:
        pickle_header.read(reader(data), len(data), "s3://b/model.bin")
    assert str(caught.value).startswith("s3://b/model.bin does not say what tensors it has")


def test_an_archive_without_a_description_is_refused() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as written:
        written.writestr("readme", b"")
    with pytest.raises(CheckpointError, match=r"without a data\.pkl"):
        pickle_header.read(reader(file.getvalue()), len(file.getvalue()), "x")
