from __future__ import annotations

import asyncio
import os
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.faulty_s3 import Fault, FaultyS3
from tests.support.hosting import REGION, World, hosted, packed, until

from bloomery.errors import DeploymentFailure
from bloomery.sagemaker.emulator.containers import environment, model_data
from bloomery.sagemaker.emulator.containers.artefacts import Artefacts
from bloomery.sagemaker.emulator.deployment import ModelData


async def fetched(world: World, data: ModelData, seconds: float = 60) -> Path:
    return await Artefacts(world.around).fetch(data, REGION, seconds, lambda _: None)


async def refusal(world: World, data: ModelData, monkeypatch: pytest.MonkeyPatch) -> str:
    """Why it fails; called as the child process would, without the second that its start takes."""
    for name, value in environment.aws(world.around, REGION).items():
        monkeypatch.setenv(name, value)
    store, partial = world.around.state / "store", world.around.state / "partial"
    store.mkdir()
    partial.mkdir()
    with pytest.raises(DeploymentFailure) as caught:
        await asyncio.to_thread(model_data.provide, data, store, partial)
    assert list(store.iterdir()) == []
    return str(caught.value)


def files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


async def test_an_archive_is_unpacked_as_it_is_read_only(tmp_path: Path) -> None:
    content = {"code/model.py": b"x = 1", "code/serving.properties": b"engine=Python", "note.txt": b""}
    async with hosted(tmp_path) as world:
        phases: list[str] = []
        uri = world.put("a/model.tar.gz", packed(content))
        directory = await Artefacts(world.around).fetch(ModelData(archive=uri), REGION, 60, phases.append)
        assert files(directory) == content
        assert not any(path.stat().st_mode & 0o222 for path in directory.rglob("*") if path.is_file())
        assert phases[0] == "downloading the model data"
        assert phases[-1] == "extracting the model data"


async def test_the_same_content_is_fetched_once_and_another_is_another(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        uri = world.put("model.tar.gz", packed({"one": b"1"}))
        first = await fetched(world, ModelData(archive=uri))
        written = (first / "one").stat()
        assert await fetched(world, ModelData(archive=uri)) == first
        assert (first / "one").stat() == written
        world.put("model.tar.gz", packed({"two": b"2"}))
        assert files(await fetched(world, ModelData(archive=uri))) == {"two": b"2"}
        assert files(first) == {"one": b"1"}


async def test_no_model_data_is_an_empty_directory(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        assert list((await fetched(world, ModelData())).iterdir()) == []


def link(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo("weights.bin")
    info.type, info.linkname = kind, "model.py"
    return info


def device() -> tarfile.TarInfo:
    info = tarfile.TarInfo("null")
    info.type, info.devmajor, info.devminor = tarfile.CHRTYPE, 1, 3
    return info


@pytest.mark.parametrize(
    ("archive", "reason"),
    [
        (packed({"model.py": b""}, link(tarfile.SYMTYPE)), "a link to 'model.py'"),
        (packed({"model.py": b""}, link(tarfile.LNKTYPE)), "a link to 'model.py'"),
        (packed({}, device()), "neither a file, a directory nor a link"),
        (packed({"../model.py": b""}), "leads out of it"),
        (packed({"/tmp/model.py": b""}), "leads out of it"),
        (packed({"model.py": b""}, mode="w"), "no archive of the kind its name says"),
        (packed({"model.py": b"x" * 100_000})[:-40], "damaged"),
        (b"", "no archive of the kind its name says"),
    ],
    ids=["symlink", "hardlink", "device", "dots", "absolute", "not-zipped", "cut-short", "empty"],
)
async def test_an_archive_that_sagemaker_refuses(
    archive: bytes, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosted(tmp_path) as world:
        uri = world.put("model.tar.gz", archive)
        text = await refusal(world, ModelData(archive=uri), monkeypatch)
        assert text.startswith(
            f'Failed to extract model data archive for container "container_1" from URL "{uri}". Please ensure that '
            "the object located at the URL is a valid tar.gz archive. ("
        )
        assert reason in text


async def test_what_is_not_there(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        here = f"s3://{world.bucket}/none"
        for data in (ModelData(archive=f"{here}.tar.gz"), ModelData(prefix=f"{here}/")):
            with pytest.raises(DeploymentFailure) as caught:
                await fetched(world, data)
            expected = f'Failed to download model data for container "container_1" from URL: "{here}'
            assert str(caught.value).startswith(expected)
        assert list((tmp_path / "artefacts").iterdir()) == []


async def test_a_prefix_is_copied_key_by_key(tmp_path: Path) -> None:
    async with hosted(tmp_path) as world:
        for key in ("m/config.json", "m/deep/er/weights", "mm/other", "other"):
            world.put(key, key.encode())
        directory = await fetched(world, ModelData(prefix=f"s3://{world.bucket}/m/"))
        assert files(directory) == {"config.json": b"m/config.json", "deep/er/weights": b"m/deep/er/weights"}


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (["m/folder/"], "the S3 console makes"),
        (["m/a//b"], "'' is no name"),
        (["m/./b"], "'.' is no name"),
        (["m/../b"], "'..' is no name"),
        (["m/" + "x" * 256], "longer than 255 bytes"),
        (["m/weights", "m/weights/part1"], "weights would have to be a file and a directory"),
    ],
    ids=["folder", "empty", "dot", "dots", "long", "clash"],
)
async def test_a_key_that_sagemaker_refuses(
    keys: list[str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with hosted(tmp_path) as world:
        for key in ["m/good", *keys]:
            world.put(key, b"x")
        assert reason in await refusal(world, ModelData(prefix=f"s3://{world.bucket}/m/"), monkeypatch)


@pytest.fixture
def stalling(tmp_path: Path) -> Iterator[FaultyS3]:
    """An S3 that sends 100,000 bytes of s3://bucket/model.tar.gz, and never another one."""
    bucket = tmp_path / "objects" / "bucket"
    bucket.mkdir(parents=True)
    (bucket / "model.tar.gz").write_bytes(packed({"weights": os.urandom(300_000)}))
    with FaultyS3(tmp_path / "objects", checks_signatures=False) as server:
        server.inject(Fault("stall", after_bytes=100_000))
        yield server


async def test_the_time_for_the_data_is_exact_and_leaves_nothing(tmp_path: Path, stalling: FaultyS3) -> None:
    async with hosted(tmp_path / "state", s3_url=stalling.url) as world:
        began = time.monotonic()
        with pytest.raises(DeploymentFailure, match=r"within 3 seconds \(ModelDataDownloadTimeoutInSeconds\)"):
            await fetched(world, ModelData(archive="s3://bucket/model.tar.gz"), seconds=3)
        assert 3 <= time.monotonic() - began < 15
        assert list((tmp_path / "state" / "artefacts").iterdir()) == []


async def test_a_fetch_that_is_cancelled_leaves_nothing(tmp_path: Path, stalling: FaultyS3) -> None:
    async with hosted(tmp_path / "state", s3_url=stalling.url) as world:
        fetching = asyncio.create_task(fetched(world, ModelData(archive="s3://bucket/model.tar.gz")))
        await until(lambda: stalling.sent >= 100_000)
        fetching.cancel()
        await asyncio.gather(fetching, return_exceptions=True)
        assert list((tmp_path / "state" / "artefacts").iterdir()) == []
