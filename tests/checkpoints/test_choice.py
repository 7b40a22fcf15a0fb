from __future__ import annotations

import pytest

from bloomery.checkpoints.choice import wanted_files

CONFIG = ["config.json", "tokenizer.json"]


@pytest.mark.parametrize(
    "dropped",
    [
        "tf_model.h5",
        "flax_model.msgpack",
        "rust_model.ot",
        "model.gguf",
        "onnx/model.onnx",
        "onnx/config.json",
        "training_args.bin",
        "optimizer.pt",
        ".gitattributes",
        "sub/.cache/file",
        ".fetched.json",
        ".fetching/files/model.safetensors",
    ],
)
def test_what_no_engine_reads_is_left(dropped: str) -> None:
    assert wanted_files([*CONFIG, "pytorch_model.bin", dropped]) == [*CONFIG[:1], "pytorch_model.bin", *CONFIG[1:]]


@pytest.mark.parametrize(
    "twice",
    [
        "pytorch_model.bin",
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model.bin.index.json",
        "consolidated.00.pth",
        "consolidated.safetensors",
        "consolidated-00001-of-00002.safetensors",
        "consolidated.safetensors.index.json",
        "original/consolidated.00.pth",
        "original/params.json",
    ],
)
def test_what_is_there_as_transformers_safetensors_is_taken_once(twice: str) -> None:
    needed = ["config.json", "model-00001-of-00001.safetensors", "model.safetensors.index.json"]
    assert wanted_files([*needed, twice]) == needed


@pytest.mark.parametrize(
    "names",
    [
        ["config.json", "pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"],
        ["consolidated.safetensors", "params.json"],
        ["2_Dense/model.safetensors", "config.json", "pytorch_model.bin"],  # the safetensors are another folder's
        ["ds_inference_config.json", "non-tp.pt", "tp_00_00.pt"],
        ["LICENSE", "MANIFEST.json", "README.md", "chat_template.jinja", "config.json", "model.safetensors"],
    ],
)
def test_the_only_weights_are_taken_whatever_they_are(names: list[str]) -> None:
    assert wanted_files(names) == names


def test_patterns_are_taken_at_their_word() -> None:
    names = ["a/pytorch_model.bin", "config.json", "model.safetensors", ".fetched.json", ".hidden", "tf_model.h5"]
    assert wanted_files(names, ["*.bin", "*.h5"]) == ["a/pytorch_model.bin", "tf_model.h5"]
    assert wanted_files(names, ["*"]) == [
        ".hidden",
        "a/pytorch_model.bin",
        "config.json",
        "model.safetensors",
        "tf_model.h5",
    ]
