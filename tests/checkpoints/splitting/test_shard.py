"""``shard``: what is written is the source, cut as the tables say; with little memory; whole, or not there."""

from __future__ import annotations

import hashlib
import json
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from awscrt.checksums import crc64nvme
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.support.faulty_s3 import Fault, FaultyS3
from tests.support.faulty_s3.environment import FOREIGN, client_environment
from tests.support.rank_pair import CONTAINER
from tests.support.tiny_models import tiny_encoder, tiny_model, tiny_seq2seq

from bloomery.checkpoints.sources import manifest
from bloomery.checkpoints.splitting import output_s3, shard_weights
from bloomery.checkpoints.splitting.presharded import Index
from bloomery.checkpoints.splitting.shard import shard
from bloomery.errors import CheckpointError, ConfigurationError, UnsupportedModelError
from bloomery.processes.lock import FileLock
from bloomery.sharding import FAMILIES, Heads, split


def whole(directory: Path) -> dict[str, torch.Tensor]:
    """All tensors of a split checkpoint, put together by its index alone."""
    index = Index.from_json((directory / "presharded.index.json").read_bytes(), directory)
    found = {}
    for name, tensor in index.tensors.items():
        target = torch.empty(tensor.shape, dtype=torch.int8 if tensor.dtype == "I8" else torch.float32)
        for part in tensor.parts:
            with safe_open(directory / part.file, "pt") as file:
                held = file.get_tensor(name)
            if tensor.axis is None:
                target.copy_(held)
                continue
            position = 0
            for start, stop in part.ranges:
                target.narrow(tensor.axis, start, stop - start).copy_(held.narrow(tensor.axis, position, stop - start))
                position += stop - start
        found[name] = target
    return found


@pytest.fixture(params=["bloom", "opt", "gpt2", "gpt_neo", "gptj", "gpt_neox", "llama", "qwen3", "bert", "t5"])
def family(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    name = request.param
    if name == "bert":
        return tiny_encoder("MaskedLM", tmp_path / name)
    return tiny_seq2seq(name, tmp_path / name) if name == "t5" else tiny_model(name, tmp_path / name)


def test_parts_are_those_of_the_tables_and_make_up_the_source(family: Path, tmp_path: Path) -> None:
    shard(str(family), str(tmp_path / "split"), tensor_parallel=2, file_bytes=60_000)

    source, found = load_file(family / "model.safetensors"), whole(tmp_path / "split")
    assert found.keys() == source.keys()
    assert all(torch.equal(found[name], source[name]) for name in source)
    config = json.loads((family / "config.json").read_text())
    table, heads = FAMILIES[config["model_type"]], Heads.of(config)
    index = Index.from_json((tmp_path / "split" / "presharded.index.json").read_bytes(), family)
    for name, tensor in index.tensors.items():
        known = name.replace("embed_out", "lm_head")
        wanted = [split(table, heads, known, tensor.shape, rank, 2) for rank in range(2)]
        assert tensor.axis == wanted[0].axis, name
        if tensor.axis is not None:
            by_rank = {part.file.split("_")[1]: part.ranges for part in tensor.parts}
            filled = [rank for rank in range(2) if wanted[rank].ranges[0][0] < wanted[rank].ranges[0][1]]
            shares = {f"{rank:02d}": wanted[rank].ranges for rank in filled}
            assert by_rank == shares, name
    assert any(tensor.axis is not None for tensor in index.tensors.values())


def test_files_are_valid_small_and_listed_with_their_checksums(tmp_path: Path) -> None:
    path = tiny_model("bloom", tmp_path / "bloom")
    done = shard(str(path), str(tmp_path / "split"), tensor_parallel=2, file_bytes=60_000)

    split_files = sorted((tmp_path / "split").glob("*.safetensors"))
    assert sum(file.stat().st_size for file in split_files) == pytest.approx(
        (path / "model.safetensors").stat().st_size, rel=0.1
    )
    assert all(file.stat().st_size < 62_000 for file in split_files if not file.name.startswith("non-tp"))
    listed = manifest.read((tmp_path / "split" / "MANIFEST.json").read_bytes(), "MANIFEST.json")
    names = {str(file.relative_to(tmp_path / "split")) for file in (tmp_path / "split").rglob("*") if file.is_file()}
    assert listed == done.files
    assert names == {*listed, "MANIFEST.json"}
    for name, entry in listed.items():
        data = (tmp_path / "split" / name).read_bytes()
        assert entry == manifest.Listed(len(data), crc64nvme(data), hashlib.sha256(data).hexdigest())
    described = json.loads((tmp_path / "split" / "ds_inference_config.json").read_text())
    assert (described["base_dir"], described["tp_size"], described["parallelization"]) == ("", 2, "tp")
    assert {*described["checkpoints"]["tp"], *described["checkpoints"]["non_tp"]} == {file.name for file in split_files}


def test_one_rank_gives_an_ordinary_checkpoint(tmp_path: Path) -> None:
    path = tiny_model("llama", tmp_path / "llama")
    shard(str(path), str(tmp_path / "plain"), tensor_parallel=1, dtype="bf16", file_bytes=60_000)

    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "plain")  # dtype: config.json's
    source = load_file(path / "model.safetensors")
    assert model.dtype == torch.bfloat16
    assert len(list((tmp_path / "plain").glob("model-*.safetensors"))) > 1
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, source[name].bfloat16()), name


def test_torch_files_become_safetensors(tmp_path: Path) -> None:
    path = tiny_model("opt", tmp_path / "opt")
    tensors = load_file(path / "model.safetensors")
    (path / "model.safetensors").unlink()
    tensors["lm_head.weight"] = tensors["model.decoder.embed_tokens.weight"]  # tied, as torch saves it
    half = {name: tensor.bfloat16() if name.endswith("fc1.weight") else tensor for name, tensor in tensors.items()}
    torch.save(half, path / "pytorch_model.bin")

    shard(str(path), str(tmp_path / "plain"), tensor_parallel=1)

    found = load_file(tmp_path / "plain" / "model.safetensors")
    del half["lm_head.weight"]
    assert found.keys() == half.keys()
    assert all(torch.equal(found[name], half[name]) and found[name].dtype == half[name].dtype for name in half)
    assert not (tmp_path / "plain" / "pytorch_model.bin").exists()


@pytest.mark.parametrize("family", ["llama", "gpt2"], indirect=True)
def test_int8_rounds_by_output_channel_and_says_how_much(family: Path, tmp_path: Path) -> None:
    done = shard(str(family), str(tmp_path / "int8"), tensor_parallel=2, dtype="int8")

    source, found = load_file(family / "model.safetensors"), whole(tmp_path / "int8")
    index = Index.from_json((tmp_path / "int8" / "presharded.index.json").read_bytes(), family)
    quantised = {name for name, tensor in found.items() if tensor.dtype == torch.int8}
    assert quantised == done.rounded.keys() == {name for name, tensor in index.tensors.items() if tensor.int8}
    assert len(quantised) == 2 * (7 if family.name == "llama" else 4)
    for name in quantised:
        axis = 1 if family.name == "gpt2" else 0
        scales = found[name + "_scale"].unsqueeze(1 - axis)
        off = (found[name] * scales - source[name]).abs()
        assert (off <= scales * 0.5 + 1e-7).all(), name
        assert torch.equal(scales, scales.bfloat16().float()), name
        rms = off.norm() / source[name].norm()
        assert (done.rounded[name].axis, done.rounded[name].largest, done.rounded[name].relative_rms) == (
            axis, pytest.approx(float(off.max()), rel=1e-4), pytest.approx(float(rms), rel=1e-4)
        )  # fmt: skip
        assert rms < 0.02
    assert all(torch.equal(found[name], source[name]) for name in source if name not in quantised)


def test_the_same_again_is_left_alone_and_anything_else_refused(tmp_path: Path) -> None:
    path, target = tiny_model("bloom", tmp_path / "bloom"), tmp_path / "split"
    shard(str(path), str(target), tensor_parallel=2)
    before = {file: file.stat().st_mtime_ns for file in target.iterdir()}

    assert not shard(str(path), str(target), tensor_parallel=2).made
    assert before == {file: file.stat().st_mtime_ns for file in target.iterdir()}
    for change in ({"tensor_parallel": 4}, {"tensor_parallel": 2, "dtype": "bf16"}):
        with pytest.raises(CheckpointError, match="made otherwise"):
            shard(str(path), str(target), **change)
    with pytest.raises(CheckpointError, match="no checkpoint that this command has written"):
        shard(str(path), str(path), tensor_parallel=2)
    (target / "tp_00_00.safetensors").write_bytes(b"cut")
    with pytest.raises(CheckpointError, match=r"tp_00_00.safetensors is not as MANIFEST.json says"):
        shard(str(path), str(target), tensor_parallel=2)


def test_nothing_is_left_of_one_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_model("bloom", tmp_path / "bloom")
    taken = []
    monkeypatch.setattr(shard_weights, "BLOCK_BYTES", 4096)
    original = shard_weights.pieces

    def stopped(*arguments: Any) -> Any:
        taken.append(1)
        if len(taken) > 30:
            assert (tmp_path / ".split.sharding").is_dir()
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(shard_weights, "pieces", stopped)
    with pytest.raises(KeyboardInterrupt):
        shard(str(path), str(tmp_path / "split"), tensor_parallel=2)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bloom"]


def test_what_a_killed_run_left_is_no_obstacle(tmp_path: Path) -> None:
    path = tiny_model("bloom", tmp_path / "bloom")
    (tmp_path / ".split.sharding" / "tokenizer").mkdir(parents=True)
    (tmp_path / ".split.sharding" / "tp_00_00.safetensors").write_bytes(b"half")
    assert shard(str(path), str(tmp_path / "split"), tensor_parallel=2).made
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["bloom", "split"]


def test_one_at_a_time(tmp_path: Path) -> None:
    path = tiny_model("bloom", tmp_path / "bloom")
    lock = FileLock(tmp_path / ".split.sharding.lock")
    assert lock.acquired()
    with pytest.raises(CheckpointError, match="is being written by another process"):
        shard(str(path), str(tmp_path / "split"), tensor_parallel=2)
    lock.release()
    assert shard(str(path), str(tmp_path / "split"), tensor_parallel=2).made


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"tensor_parallel": 3}, UnsupportedModelError, "tensor_parallel=3 does not divide the 4 attention heads"),
        ({"tensor_parallel": 0}, ConfigurationError, "at least 1"),
        ({"tensor_parallel": 2, "dtype": "int4"}, ConfigurationError, "dtype='int4' is not one of fp32"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path: Path, arguments: Any, error: Any, message: str) -> None:
    path = tiny_model("bloom", tmp_path / "bloom")
    with pytest.raises(error, match=message):
        shard(str(path), str(tmp_path / "split"), **arguments)
    assert not (tmp_path / "split").exists()


def test_a_number_that_the_format_cannot_hold_is_named(tmp_path: Path) -> None:
    path = tiny_model("llama", tmp_path / "llama")
    tensors = load_file(path / "model.safetensors")
    tensors["model.norm.weight"][3] = 1e5
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"model.norm.weight holds 1e\+05, more than F16 can"):
        shard(str(path), str(tmp_path / "split"), tensor_parallel=2, dtype="fp16")


def test_damaged_sources_are_named(tmp_path: Path) -> None:
    path = tiny_model("llama", tmp_path / "llama")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    with pytest.raises(UnsupportedModelError, match="no tensor-parallel table for model_type 'mamba'"):
        shard(str(path), str(tmp_path / "split"), tensor_parallel=2)
    assert shard(str(path), str(tmp_path / "plain"), tensor_parallel=1).made  # needs no table
    (path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds no weights that can be split"):
        shard(str(path), str(tmp_path / "split"), tensor_parallel=2)


def test_a_damaged_torch_file_is_named(tmp_path: Path) -> None:
    path = tiny_model("llama", tmp_path / "llama")
    (path / "model.safetensors").unlink()
    (path / "pytorch_model.bin").write_bytes(b"no pickle at all")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin cannot be read as a checkpoint: it is damaged"):
        shard(str(path), str(tmp_path / "split"), tensor_parallel=1)


@pytest.mark.parametrize("target", ["/", "/proc", "file:///proc"])
def test_the_place_of_a_mounted_volume_is_refused_before_all_the_work(tmp_path: Path, target: str) -> None:
    path = tiny_model("llama", tmp_path / "llama")
    with pytest.raises(CheckpointError, match=r"is where a volume is mounted.*name a new directory in it"):
        shard(str(path), target, tensor_parallel=1)


def test_a_link_to_an_empty_directory_and_a_file_url_are_targets(tmp_path: Path) -> None:
    path = tiny_model("llama", tmp_path / "llama")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert shard(str(path), str(tmp_path / "link"), tensor_parallel=1).made
    assert (tmp_path / "real" / "model.safetensors").is_file()
    assert shard(str(path), f"file://{tmp_path}/a%20name", tensor_parallel=1).made
    assert (tmp_path / "a name" / "config.json").is_file()


def test_a_full_disk_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    path = tiny_model("llama", tmp_path / "llama")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be written: File too large"):
            shard(str(path), str(tmp_path / "split"), tensor_parallel=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert [item.name for item in tmp_path.iterdir()] == ["llama"]


def test_flipped_byte_is_noticed_by_the_sources_checksum(tmp_path: Path) -> None:
    path = tiny_model("llama", tmp_path / "llama")
    shard(str(path), str(tmp_path / "plain"), tensor_parallel=1)
    file = tmp_path / "plain" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-5000] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model.safetensors: its bytes have the CRC64NVME"):
        shard(str(tmp_path / "plain"), str(tmp_path / "split"), tensor_parallel=2)
    assert not (tmp_path / "split").exists()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    (tmp_path / "s3" / "models").mkdir(parents=True)
    for name in FOREIGN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(output_s3, "_PART_BYTES", 5 << 20)
    with FaultyS3(tmp_path / "s3", with_checksums=False) as server:
        for name, value in client_environment(server.url).items():
            monkeypatch.setenv(name, value)
        yield server


WIDE = {"hidden_size": 256, "intermediate_size": 8192, "vocab_size": 3000}  # a rank's file has several parts


def test_from_s3_to_s3_is_the_same_as_on_the_disk(tmp_path: Path, server: FaultyS3) -> None:
    path = tiny_model("llama", tmp_path / "s3" / "models" / "llama", **WIDE)
    done = shard(str(path), str(tmp_path / "split"), tensor_parallel=2)

    server.inject(Fault("error", "*", fraction=0.2), Fault("reset", "GetObject", every=5, after_bytes=1000))
    there = shard("s3://models/llama", "s3://models/split/", tensor_parallel=2)
    server.heal()

    weights = {name for name in done.files if name.endswith(".safetensors")}
    assert {name: there.files[name] for name in weights} == {name: done.files[name] for name in weights}
    written = tmp_path / "s3" / "models" / "split"
    assert {file.name for file in written.iterdir()} == {*there.files, "MANIFEST.json"}
    for name, entry in there.files.items():
        assert crc64nvme((written / name).read_bytes()) == entry.crc64nvme
    puts = [record.key for record in server.requests() if record.method == "PUT" and record.status == 200]
    assert [key.rpartition("/")[2] for key in puts[-2:]] == ["config.json", "MANIFEST.json"]
    assert not list(server.objects.uploads("models"))
    server.forget()
    assert not shard("s3://models/llama", "s3://models/split/", tensor_parallel=2).made
    assert {record.method for record in server.requests()} <= {"GET", "HEAD"}
    with pytest.raises(CheckpointError, match="made otherwise"):
        shard("s3://models/llama", "s3://models/split/", tensor_parallel=1)


def test_nothing_is_left_in_s3_of_one_that_fails(tmp_path: Path, server: FaultyS3) -> None:
    path = tiny_model("llama", tmp_path / "llama", **WIDE)
    server.inject(Fault.denied("PutObject", "*config.json"))
    with pytest.raises(CheckpointError, match=r"config.json could not be written: access is denied"):
        shard(str(path), "s3://models/split", tensor_parallel=2)
    assert not list(server.objects.keys("models"))
    server.inject(Fault("error", "UploadPart", skip=2, status=403, code="AccessDenied"))
    with pytest.raises(CheckpointError, match=r"part \d could not be written"):
        shard(str(path), "s3://models/split", tensor_parallel=2)
    assert not list(server.objects.keys("models"))
    assert not list(server.objects.uploads("models"))


def test_a_prefix_with_other_objects_is_refused(tmp_path: Path, server: FaultyS3) -> None:
    path = tiny_model("llama", tmp_path / "llama")
    (tmp_path / "s3" / "models" / "split").mkdir()
    (tmp_path / "s3" / "models" / "split" / "tp_00_00.safetensors").write_bytes(b"of a run that was killed")
    (tmp_path / "s3" / "models" / "split" / "notes.txt").write_bytes(b"of somebody else")
    with pytest.raises(CheckpointError, match=r"holds 1 objects that are no part of this checkpoint \(notes.txt\)"):
        shard(str(path), "s3://models/split", tensor_parallel=2)
    (tmp_path / "s3" / "models" / "split" / "notes.txt").unlink()
    assert shard(str(path), "s3://models/split", tensor_parallel=2).made


# Memory: a checkpoint of some size through a child that watches itself.
PEAK = """
import resource, sys, threading, time
from bloomery.checkpoints.splitting.shard import shard
def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) << 10
base = peak = anonymous()
over = threading.Event()
def watch():
    global peak
    while not over.wait(0.002):
        peak = max(peak, anonymous())
thread = threading.Thread(target=watch)
thread.start()
shard(sys.argv[1], sys.argv[2], tensor_parallel=2, dtype=sys.argv[3] or None)
over.set()
thread.join()
print(peak - base)
"""


def large_llama(directory: Path, megabytes: int) -> Path:
    config = transformers.LlamaConfig(
        hidden_size=1024, intermediate_size=4096, num_attention_heads=16, num_key_value_heads=16,
        num_hidden_layers=megabytes // 32, vocab_size=8000,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(directory)
    return directory


def growth(source: Path, target: Path, dtype: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PEAK, source, target, dtype],
        env={"PYTHONPATH": str(CONTAINER), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


@pytest.mark.parametrize("dtype", ["", *(pytest.param(dtype, marks=pytest.mark.full) for dtype in ("int8", "fp32"))])
def test_memory_is_a_few_blocks_whatever_the_size(tmp_path: Path, dtype: str) -> None:
    path = large_llama(tmp_path / "large", 450)
    size = (path / "model.safetensors").stat().st_size
    assert size > 400 << 20
    assert growth(path, tmp_path / "split", dtype) < 200 << 20
