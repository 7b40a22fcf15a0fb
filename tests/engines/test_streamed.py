"""A rank's share straight from its source: the same weights as from a directory, each byte read by one rank."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tests.support.counted_source import CountedSource
from tests.support.rank_pair import run_pair
from tests.support.tiny_models import tiny_model

from bloomery.checkpoints import Checkpoint
from bloomery.checkpoints.safetensors_header import TensorInfo
from bloomery.engines import accelerate, deepspeed
from bloomery.engines.base import GenerationParameters
from bloomery.engines.landing import DTYPES, TensorLanding
from bloomery.errors import CheckpointError

REPOSITORY = Path(__file__).parents[2]
PROMPTS = [[5, 6, 7], [11, 12]]


def streamed(path: Path, **options: Any) -> Checkpoint:
    source = CountedSource(path, **options)
    return Checkpoint(path, source, source.safetensors())


def test_codes_of_a_quantised_weight_are_no_weights(tmp_path: Path) -> None:
    path = tiny_model("bloom", tmp_path / "bloom")
    tensors = load_file(path / "model.safetensors")
    name = "transformer.h.0.mlp.dense_h_to_4h.weight"
    tensors[name] = (tensors[name] * 100).to(torch.int8)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(CheckpointError, match=f"{name} of .* is stored as int8, and the model holds float32"):
        deepspeed.load(streamed(path))


class TestLanding:
    def test_every_share_arrives_however_its_bytes_are_cut(self) -> None:
        """Rows, columns, several ranges of either; transposed targets; other dtypes."""
        random.seed(1)
        for _ in range(500):
            shape = tuple(random.randint(1, 9) for _ in range(random.choice([1, 2, 2, 3])))
            stored = torch.randn(shape).to(torch.bfloat16)
            axis = random.randrange(len(shape))
            cuts = sorted(random.sample(range(shape[axis] + 1), 2 * random.randint(1, (shape[axis] + 1) // 2)))
            ranges = list(zip(cuts[::2], cuts[1::2], strict=True))
            share = torch.cat([stored.narrow(axis, start, stop - start) for start, stop in ranges], axis)
            target = torch.full(share.shape, torch.nan, dtype=random.choice([torch.bfloat16, torch.float32]))
            if len(shape) == 2 and random.random() < 0.5:
                target = torch.full(share.t().shape, torch.nan, dtype=target.dtype).t()

            self.land(TensorLanding(target, info_of(stored), axis, ranges), stored)

            assert torch.equal(target, share.to(target.dtype)), (shape, axis, ranges)

    def land(self, landing: TensorLanding, stored: torch.Tensor) -> None:
        data = bytearray(stored.reshape(-1).view(torch.uint8).numpy().tobytes())
        for start, stop in landing.runs() if landing.in_rows else [(0, len(data))]:
            while start < stop:
                piece = memoryview(data)[start : min(stop, start + 2 * random.randint(1, 20))]
                memory = landing.memory(start, len(piece))
                if memory is None:
                    landing.land(start, piece)
                else:
                    memory[:] = piece
                start += len(piece)

    @pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
    def test_bytes_of_every_dtype_go_straight_into_the_tensor(self, dtype: torch.dtype) -> None:
        stored = torch.randint(0, 2, (6, 5)).to(dtype)
        target = torch.zeros(6, 5).to(dtype)

        landing = TensorLanding(target, info_of(stored))

        assert landing.memory(0, stored.nbytes) is not None
        self.land(landing, stored)
        assert torch.equal(target.view(torch.uint8), stored.view(torch.uint8))

    def test_a_scalar_lands(self) -> None:
        target = torch.tensor(0.0)

        TensorLanding(target, info_of(torch.tensor(2.5))).land(0, memoryview(bytearray(b"\x00\x00\x20\x40")))

        assert target == 2.5

    def test_a_dtype_that_torch_does_not_have_is_refused(self) -> None:
        with pytest.raises(CheckpointError, match="w is stored as F4"):
            TensorLanding(torch.zeros(2), TensorInfo("w", "F4", (2,), 0, 1))


def info_of(stored: torch.Tensor) -> TensorInfo:
    name = next(name for name, dtype in DTYPES.items() if dtype == stored.dtype)
    return TensorInfo("w", name, tuple(stored.shape), 0, stored.nbytes)


COMPARE = """
import json, logging
from pathlib import Path
from tests.engines.test_streamed import PROMPTS, streamed
from bloomery.engines import deepspeed, streamed as reader
from bloomery.engines.base import GenerationParameters
from bloomery.engines.streamed import conclude

reader._SMALL_BYTES = 0  # or nothing of a tiny model would be read in rows
accounts = {}
def concluded(*arguments):
    accounts[name] = conclude(*arguments)
    return accounts[name]
reader.conclude = concluded

def tokens(place, inject, dtype):
    engine = deepspeed.load(place, kernel_inject=inject, allreduce="gloo", dtype=dtype)
    found = [step.tokens for step in engine.generate(PROMPTS, GenerationParameters(max_new_tokens=8, ignore_eos=True))]
    del engine
    return found

found = {}
for name, (inject, dtype) in MODELS.items():
    path = Path("DIRECTORY") / name
    same = tokens(path, inject, dtype) == tokens(streamed(path), inject, dtype)
    account = accounts[name]
    found[name] = [same, account.read, account.handed_in, account.by_all, account.size, account.checked]
print(json.dumps(found))
"""
# With kernel injection or without; an injected OPT or GPT-NeoX has an MLP of four times the hidden size.
MODELS: dict[str, tuple[bool, str]] = {
    "bloom": (True, "fp32"),
    "opt": (False, "bf16"),
    "gpt2": (True, "fp32"),
    "gpt_neox": (True, "fp32"),
    "llama": (False, "int8"),
    "qwen2": (False, "fp32"),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    for family in MODELS:
        tiny_model(family, directory / family, **({"intermediate_size": 256} if family == "gpt_neox" else {}))
    return directory


@pytest.mark.parametrize(
    ("ranks", "families"),
    [
        (2, ("bloom", "opt", "llama")),
        pytest.param(1, tuple(MODELS), marks=pytest.mark.full),
        pytest.param(2, ("gpt2", "gpt_neox", "qwen2"), marks=pytest.mark.full),
        pytest.param(4, ("bloom", "opt", "gpt2", "gpt_neox"), marks=pytest.mark.full),
    ],
)
def test_ranks_answer_as_from_a_directory_and_read_each_byte_once(
    models: Path, ranks: int, families: tuple[str, ...]
) -> None:
    chosen = {name: MODELS[name] for name in families}
    script = COMPARE.replace("MODELS", repr(chosen)).replace("DIRECTORY", str(models))

    results = run_pair(script, {"PYTHONPATH": f"{REPOSITORY / 'container'}:{REPOSITORY}"}, world_size=ranks)

    for name in chosen:
        header = header_bytes(models / name / "model.safetensors")
        for same, read, handed_in, by_all, size, checked in (result[name] for result in results):
            assert same, name
            assert by_all == size + (ranks - 1) * header  # each rank reads the headers
            assert checked == 1
            assert read + handed_in <= size
            assert read < size or ranks == 1


def header_bytes(file: Path) -> int:
    return 8 + int.from_bytes(file.read_bytes()[:8], "little")


class TestLoading:
    @pytest.fixture
    def bloom(self, tmp_path: Path) -> Path:
        return tiny_model("bloom", tmp_path / "bloom")

    def test_transformers_in_one_process_streams_too(self, tmp_path: Path, caplog) -> None:
        path = tiny_model("llama", tmp_path / "llama", tie_word_embeddings=True)
        ask = GenerationParameters(max_new_tokens=8, ignore_eos=True)
        expected = [step.tokens for step in accelerate.load(path).generate(PROMPTS, ask)]

        with caplog.at_level("INFO"):
            engine = accelerate.load(streamed(path))

        assert [step.tokens for step in engine.generate(PROMPTS, ask)] == expected
        assert "together read 1.00 times the checkpoint's" in caplog.text

    def test_several_files_are_read(self, bloom: Path, tmp_path: Path) -> None:
        model = transformers.AutoModelForCausalLM.from_pretrained(bloom)
        model.save_pretrained(tmp_path / "parts", max_shard_size="100KB")
        checkpoint = streamed(tmp_path / "parts")
        assert len(checkpoint.files) > 1

        loaded = deepspeed.load(checkpoint).model

        assert torch.equal(loaded.transformer.ln_f.weight, model.transformer.ln_f.weight)

    def test_a_weight_that_is_missing_is_named(self, bloom: Path) -> None:
        self.rewrite(bloom, lambda tensors: tensors.pop("transformer.h.1.mlp.dense_h_to_4h.bias"))

        with pytest.raises(CheckpointError, match=r"s3://bucket/bloom lacks weights.*h\.1\.mlp\.dense_h_to_4h\.bias"):
            deepspeed.load(streamed(bloom))

    def test_a_weight_that_holds_nan_is_named(self, bloom: Path) -> None:
        self.rewrite(bloom, lambda tensors: tensors["transformer.ln_f.bias"].fill_(torch.nan))

        with pytest.raises(CheckpointError, match=r"s3://bucket/bloom: transformer\.ln_f\.bias holds NaN"):
            deepspeed.load(streamed(bloom))

    def test_a_config_that_does_not_fit_the_weights_is_reported(self, bloom: Path) -> None:
        config = json.loads((bloom / "config.json").read_text())
        (bloom / "config.json").write_text(json.dumps(config | {"hidden_size": 128}))

        with pytest.raises(CheckpointError, match=r"has shape \[.*config\.json does not describe these weights"):
            deepspeed.load(streamed(bloom))

    def test_a_byte_that_comes_wrong_ends_the_load(self, bloom: Path) -> None:
        with pytest.raises(CheckpointError, match=r"model\.safetensors of s3://bucket/bloom is damaged"):
            deepspeed.load(streamed(bloom, flips=100_000))

    @staticmethod
    def rewrite(path: Path, change: Any) -> None:
        tensors = load_file(path / "model.safetensors")
        change(tensors)
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
