from __future__ import annotations

import hashlib
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from awscrt import checksums
from tests.checkpoints.conftest import CHECKPOINT, WEIGHTS, Bucket
from tests.support.faulty_s3 import Fault, FaultyS3
from tests.support.safetensors_file import safetensors_bytes

from bloomery import checkpoints
from bloomery.checkpoints.disk.options import FetchOptions
from bloomery.checkpoints.fetch import fetch_into
from bloomery.checkpoints.sources import manifest, open_source
from bloomery.checkpoints.sources.manifest import Listed
from bloomery.checkpoints.wire.transport import Transport
from bloomery.errors import CheckpointError, ConfigurationError
from bloomery.processes import rank
from bloomery.processes.lock import FileLock

CONTAINER = Path(__file__).parents[2] / "container"
FETCH = "import sys; from bloomery import checkpoints; print(checkpoints.fetch(sys.argv[1]))"
DEADLINE = 60.0
MIB = 1 << 20
SMALL_PARTS = FetchOptions(connections=4, part_bytes=MIB)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "a model"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    return directory


def files_of(path: Path) -> dict[str, bytes]:
    found = {str(file.relative_to(path)): file for file in path.rglob("*") if file.is_file()}
    return {name: file.read_bytes() for name, file in found.items() if not name.startswith(".")}


def hidden(path: Path) -> set[str]:
    return {item.name for item in path.iterdir() if item.name.startswith(".")}


def start_fetch(uri: str, **environment: str) -> subprocess.Popen[str]:
    variables = {**os.environ, "PYTHONPATH": str(CONTAINER), **environment}
    return subprocess.Popen([sys.executable, "-c", FETCH, uri], env=variables, stdout=subprocess.PIPE, text=True)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, f"not within {DEADLINE} s: {what}"
        time.sleep(0.01)


class TestDirectories:
    def test_one_that_is_here_is_returned_as_it_is(self, model: Path) -> None:
        assert checkpoints.fetch(str(model)) == model

    def test_a_file_url_is_one(self, model: Path) -> None:
        assert checkpoints.fetch(model.as_uri()) == model

    def test_a_relative_one_is_not_taken_for_a_hub_id(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (model / "org" / "name").mkdir(parents=True)
        (model / "org" / "name" / "config.json").write_text("{}")
        monkeypatch.chdir(model)
        assert checkpoints.fetch("org/name") == Path("org/name")

    def test_what_the_security_controls_forbid_is_refused(self, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (model / "pytorch_model.bin").touch()
        assert checkpoints.fetch(model) == model
        monkeypatch.setenv("SAGEMAKER_SECURITY_CONTROLS", "DISALLOW_PICKLE_FILES")
        with pytest.raises(ConfigurationError, match=r"pytorch_model\.bin, a pickle by its name is forbidden"):
            checkpoints.fetch(model)

    def test_one_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"/nowhere does not exist: name the directory that holds config"):
            checkpoints.fetch(tmp_path / "nowhere")

    def test_a_file_is_none(self, model: Path) -> None:
        with pytest.raises(CheckpointError, match="is a file"):
            checkpoints.fetch(model / "config.json")

    def test_one_without_a_model_is_refused_with_what_it_holds(self, model: Path) -> None:
        with pytest.raises(CheckpointError, match="which holds a model"):
            checkpoints.fetch(model.parent)


class TestWhatIsFetched:
    def test_a_prefix_arrives_in_the_temporary_directory_without_duplicate_weights(
        self, bucket: Bucket, aws: Path
    ) -> None:
        path = checkpoints.fetch(bucket.put(CHECKPOINT))
        assert path.parent == aws
        assert path.name.startswith("model-")
        assert files_of(path) == {name: data for name, data in CHECKPOINT.items() if name != "pytorch_model.bin"}
        assert hidden(path) == {".fetched.json"}

    def test_a_directory_can_be_named(self, bucket: Bucket, tmp_path: Path) -> None:
        assert checkpoints.fetch(bucket.put(CHECKPOINT), directory=tmp_path / "here").parent == tmp_path / "here"

    def test_pickles_are_taken_when_there_is_nothing_else(self, bucket: Bucket) -> None:
        path = checkpoints.fetch(bucket.put({"config.json": b"{}", "pytorch_model.bin": b"weights"}))
        assert set(files_of(path)) == {"config.json", "pytorch_model.bin"}

    def test_pickles_that_the_security_controls_forbid_are_not_served(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SAGEMAKER_SECURITY_CONTROLS", "DISALLOW_PICKLE_FILES")
        uri = bucket.put(CHECKPOINT)
        assert not list(checkpoints.fetch(uri).glob("*.bin"))  # safetensors make them needless
        pickled = bucket.put({"config.json": b"{}", "pytorch_model.bin": b"x"}, "pickled")
        with pytest.raises(ConfigurationError, match="is forbidden by DISALLOW_PICKLE_FILES"):
            checkpoints.fetch(pickled)

    def test_patterns_choose_the_files(self, bucket: Bucket) -> None:
        path = checkpoints.fetch(bucket.put(CHECKPOINT), allow_patterns=["*.bin"])
        assert set(files_of(path)) == {"pytorch_model.bin"}

    def test_patterns_that_match_nothing_are_named(self, bucket: Bucket) -> None:
        with pytest.raises(CheckpointError, match=r"holds 5 files, and none matches \['\*\.gguf'\]"):
            checkpoints.fetch(bucket.put(CHECKPOINT), allow_patterns=["*.gguf"])

    def test_a_prefix_is_a_folder(self, bucket: Bucket) -> None:
        bucket.put({"config.json": b"other"}, "model-30b")
        assert files_of(checkpoints.fetch(bucket.put({"config.json": b"mine"}))) == {"config.json": b"mine"}

    def test_different_sources_do_not_mix(self, bucket: Bucket) -> None:
        first = checkpoints.fetch(bucket.put({"config.json": b"1"}, "a/model"))
        second = checkpoints.fetch(bucket.put({"config.json": b"2"}, "b/model"))
        assert (files_of(first), files_of(second)) == ({"config.json": b"1"}, {"config.json": b"2"})

    def test_a_prefix_without_a_model_is_refused_before_anything_is_fetched(self, bucket: Bucket) -> None:
        with pytest.raises(
            CheckpointError, match=r"is not a model directory: config\.json is not in it; it holds readme"
        ):
            checkpoints.fetch(bucket.put({"readme.txt": b"?"}))
        assert bucket.read == []

    def test_the_folder_that_may_be_meant_is_named(self, bucket: Bucket) -> None:
        bucket.put({"1/config.json": b"{}", "1/old/config.json": b"{}"})
        with pytest.raises(CheckpointError, match=r"did you mean s3://bucket/model/1/ or"):
            checkpoints.fetch("s3://bucket/model")

    def test_an_index_that_names_missing_files_is_refused(self, bucket: Bucket) -> None:
        index = b'{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}'
        uri = bucket.put({"config.json": b"{}", "model.safetensors.index.json": index, "model-1.safetensors": WEIGHTS})
        with pytest.raises(
            CheckpointError, match=r"is incomplete: .* 1 of them are not there, .*'model-2\.safetensors'"
        ):
            checkpoints.fetch(uri)

    def test_a_file_that_is_no_safetensors_is_refused_before_the_rest_is_fetched(
        self, bucket: Bucket, tmp_path: Path
    ) -> None:
        bad = b"\x80\0\0\0\0\0\0\0<html>" + bytes(40 * MIB)
        uri = bucket.put({"config.json": b"{}", "model.safetensors": bad})
        for times in (1, 2):
            with pytest.raises(CheckpointError, match=r"model/model\.safetensors is damaged, .*no JSON"):
                fetch_into(open_source(uri), tmp_path / "target", options=FetchOptions(connections=1, part_bytes=MIB))
            assert sum(length for name, _, length in bucket.read if "safetensors" in name) <= times * 3 * MIB


class TestWhatIsThere:
    def test_it_is_not_fetched_again(self, bucket: Bucket) -> None:
        uri = bucket.put(CHECKPOINT)
        first = checkpoints.fetch(uri)
        read = bucket.read
        assert len(read) == len(CHECKPOINT) - 2  # neither the duplicate nor the empty one
        assert checkpoints.fetch(uri + "/") == first
        assert bucket.read == read

    def test_a_changed_object_is_fetched_anew_and_a_lost_one_removed(self, bucket: Bucket) -> None:
        uri = bucket.put(CHECKPOINT)
        checkpoints.fetch(uri)
        other = safetensors_bytes(len(WEIGHTS), seed=1)  # as long as before: only the ETag tells
        bucket.put({"model.safetensors": other})
        bucket.delete("tokenizer/vocab.txt")
        before = len(bucket.read)
        path = checkpoints.fetch(uri)
        assert files_of(path)["model.safetensors"] == other
        assert not (path / "tokenizer").exists()
        assert len(bucket.read) == before + 1

    @pytest.mark.parametrize("data", [b"cut", bytes(len(WEIGHTS))])
    def test_a_file_that_was_damaged_on_the_disk_is_fetched_anew(self, bucket: Bucket, data: bytes) -> None:
        uri = bucket.put(CHECKPOINT)
        path = checkpoints.fetch(uri)
        (path / "model.safetensors").write_bytes(data)
        assert files_of(checkpoints.fetch(uri))["model.safetensors"] == WEIGHTS

    def test_a_file_that_was_only_touched_is_compared_and_kept(self, bucket: Bucket) -> None:
        uri = bucket.put(CHECKPOINT)
        path = checkpoints.fetch(uri)
        read = bucket.read
        (path / "model.safetensors").touch()
        checkpoints.fetch(uri)
        assert bucket.read == read

    def test_after_a_restart_of_the_machine_files_are_compared(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uri = bucket.put(CHECKPOINT)
        path = checkpoints.fetch(uri)
        weights = path / "model.safetensors"
        status = weights.stat()
        weights.write_bytes(bytes(len(WEIGHTS)))  # what a power cut leaves of data that was never written
        os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
        # The machine cannot be restarted here, so its number is made up.
        monkeypatch.setattr("bloomery.checkpoints.disk.publish.boot_id", lambda: "another")
        assert files_of(checkpoints.fetch(uri))["model.safetensors"] == WEIGHTS

    def test_files_that_another_tool_has_put_there_are_compared_and_kept(self, bucket: Bucket, tmp_path: Path) -> None:
        uri = bucket.put(CHECKPOINT)
        target = tmp_path / "target"
        target.mkdir()
        (target / "model.safetensors").write_bytes(WEIGHTS)
        (target / "notes.txt").write_text("mine")
        fetch_into(open_source(uri), target)
        assert "model/model.safetensors" not in {name for name, _, _ in bucket.read}
        assert files_of(target)["notes.txt"] == b"mine"

    def test_two_sources_can_share_a_directory(self, bucket: Bucket, tmp_path: Path) -> None:
        weights = bucket.put({"model.safetensors": WEIGHTS, "old.txt": b"old"}, "weights")
        words = bucket.put({"config.json": b"{}", "tokenizer.json": b"{}"}, "words")
        for uri in (weights, words, weights, words):
            fetch_into(open_source(uri), tmp_path / "target")
        assert set(files_of(tmp_path / "target")) == {"model.safetensors", "old.txt", "config.json", "tokenizer.json"}
        read = bucket.read
        bucket.delete("old.txt", "weights")
        fetch_into(open_source(weights), tmp_path / "target")
        assert set(files_of(tmp_path / "target")) == {"model.safetensors", "config.json", "tokenizer.json"}
        assert bucket.read == read

    def test_weights_of_another_source_in_the_directory_are_told_of(
        self, bucket: Bucket, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A reader would go by the index that the first one left."""
        index = b'{"weight_map": {"a": "model-1-of-1.safetensors"}}'
        first = bucket.put({"model-1-of-1.safetensors": WEIGHTS, "model.safetensors.index.json": index}, "first")
        second = bucket.put({"model.safetensors": WEIGHTS, "config.json": b"{}"}, "second")
        fetch_into(open_source(first), tmp_path / "target")
        fetch_into(open_source(first + "/"), tmp_path / "target")
        assert caplog.text == ""
        fetch_into(open_source(second), tmp_path / "target")
        assert f"also holds weights of {first} (model-1-of-1.safetensors, model.safetensors.index.json)" in caplog.text

    def test_a_second_choice_of_files_leaves_the_first(self, bucket: Bucket, tmp_path: Path) -> None:
        uri = bucket.put(CHECKPOINT)
        fetch_into(open_source(uri), tmp_path / "target")
        fetch_into(open_source(uri), tmp_path / "target", allow_patterns=["*.bin"])
        assert set(files_of(tmp_path / "target")) == set(CHECKPOINT)

    def test_who_waits_says_so(self, bucket: Bucket, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        target = tmp_path / "target"
        lock = FileLock(target / ".fetching.lock")
        assert lock.acquired()
        uri = bucket.put(CHECKPOINT)
        with ThreadPoolExecutor(1) as pool, caplog.at_level(logging.INFO, "bloomery"):
            waiting = pool.submit(fetch_into, open_source(uri), target)
            wait_until(lambda: "waiting for another" in rank.current.status().phase, "the phase")
            assert files_of(target) == {}
            lock.release()
            waiting.result(DEADLINE)
        assert f"{target}: waiting for another process to fetch the checkpoint" in caplog.text
        assert "model.safetensors" in files_of(target)

    def test_two_processes_fetch_once(self, bucket: Bucket) -> None:
        uri = bucket.put(CHECKPOINT)
        processes = [start_fetch(uri) for _ in range(2)]
        printed = [process.communicate(timeout=DEADLINE)[0] for process in processes]
        assert [process.returncode for process in processes] == [0, 0]
        assert printed[0] == printed[1]
        assert len(bucket.read) == len(CHECKPOINT) - 2


class TestCutShort:
    @pytest.fixture
    def weights(self) -> bytes:
        return safetensors_bytes(12 * MIB)

    @pytest.fixture
    def uri(self, bucket: Bucket, weights: bytes) -> str:
        return bucket.put({"config.json": b"{}", "model.safetensors": weights})

    def test_a_killed_fetch_leaves_nothing_that_looks_whole_and_is_gone_on_with(
        self, bucket: Bucket, uri: str, aws: Path, weights: bytes
    ) -> None:
        environment = {"BLOOMERY_FETCH_PART_MIB": "1", "BLOOMERY_FETCH_CONNECTIONS": "2"}
        bucket.server.inject(Fault("stall", key="model/model.safetensors", skip=6, after_bytes=1000))
        process = start_fetch(uri, **environment)
        wait_until(
            lambda: any(len(path.read_bytes().splitlines()) >= 6 for path in aws.glob("*/.fetching/journal")), "6 parts"
        )
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=DEADLINE)
        assert [files_of(path) for path in aws.iterdir()] == [{}]
        bucket.server.heal()
        read = [(start, length) for name, start, length in bucket.read if "safetensors" in name]
        bucket.server.forget()
        process = start_fetch(uri, **environment)
        path = Path(process.communicate(timeout=DEADLINE)[0].strip())
        assert files_of(path) == {"config.json": b"{}", "model.safetensors": weights}
        assert hidden(path) == {".fetched.json"}
        again = [(start, length) for name, start, length in bucket.read if "safetensors" in name]
        assert len(again) < 12 - 2
        assert read  # and what was complete then is not read now
        assert {start for start, _ in again}.isdisjoint({start for start, _ in read[:4]})

    def interrupt(self, bucket: Bucket, uri: str, target: Path, *, resume: bool = True) -> None:
        """Fetch, and press Ctrl-C when six parts have come."""

        def seen(done: int, total: int) -> None:
            if done >= 6 * MIB:
                signal.raise_signal(signal.SIGINT)

        bucket.server.inject(Fault("stall", key="model/model.safetensors", skip=6, after_bytes=1000))
        options = FetchOptions(connections=4, part_bytes=MIB, resume=resume)
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            fetch_into(open_source(uri, transport=Transport(stall_timeout=300)), target, options=options, seen=seen)
        assert time.monotonic() - began < 120  # it waited for no read that stalls
        bucket.server.heal()
        bucket.server.forget()

    def test_an_interrupted_fetch_is_gone_on_with(
        self, bucket: Bucket, uri: str, weights: bytes, tmp_path: Path
    ) -> None:
        target = tmp_path / "target"
        self.interrupt(bucket, uri, target)
        assert files_of(target) == {}
        assert hidden(target) == {".fetching"}
        fetch_into(open_source(uri), target, options=SMALL_PARTS)
        assert files_of(target)["model.safetensors"] == weights
        assert len({start for _, start, _ in bucket.read}) == 6

    def test_what_was_under_way_takes_no_room_twice(
        self, bucket: Bucket, uri: str, weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target = tmp_path / "target"
        self.interrupt(bucket, uri, target)
        staged = target / ".fetching" / "files" / "model.safetensors"
        staged.write_bytes(staged.read_bytes())  # no hole is left in it
        monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": (64 << 20) + 5000})())
        fetch_into(open_source(uri), target, options=SMALL_PARTS)
        assert files_of(target)["model.safetensors"] == weights

    def test_what_a_power_cut_took_of_a_part_is_read_again(
        self, bucket: Bucket, uri: str, weights: bytes, tmp_path: Path
    ) -> None:
        target = tmp_path / "target"
        self.interrupt(bucket, uri, target)
        with (target / ".fetching" / "files" / "model.safetensors").open("r+b") as file:
            file.write(bytes(100))
        fetch_into(open_source(uri), target, options=SMALL_PARTS)
        assert files_of(target)["model.safetensors"] == weights
        assert {("model.safetensors", 0, MIB)} <= {*bucket.read}

    def test_a_changed_object_is_begun_anew(self, bucket: Bucket, uri: str, tmp_path: Path) -> None:
        target = tmp_path / "target"
        self.interrupt(bucket, uri, target)
        other = safetensors_bytes(12 * MIB, seed=1)
        bucket.put({"model.safetensors": other})
        fetch_into(open_source(uri), target, options=SMALL_PARTS)
        assert files_of(target)["model.safetensors"] == other

    def test_an_object_that_changes_meanwhile_is_begun_anew_once(self, bucket: Bucket, tmp_path: Path) -> None:
        data = os.urandom(12 * MIB)
        uri = bucket.put({"weights": data}, "other")
        bucket.server.inject(Fault("replace", skip=3, times=1))
        fetch_into(open_source(uri), tmp_path / "target", options=FetchOptions(connections=1, part_bytes=MIB))
        now = files_of(tmp_path / "target")["weights"]
        assert now == (tmp_path / "s3" / "bucket" / "other" / "weights").read_bytes()
        assert now != data

    def test_an_object_that_changes_all_the_time_is_given_up(self, bucket: Bucket, tmp_path: Path) -> None:
        uri = bucket.put({"weights": os.urandom(12 * MIB)}, "other")
        bucket.server.inject(Fault("replace", every=4))
        with pytest.raises(CheckpointError, match=r"s3://bucket/other/weights, bytes .* was replaced while"):
            fetch_into(open_source(uri), tmp_path / "target", options=FetchOptions(connections=1, part_bytes=MIB))
        assert files_of(tmp_path / "target") == {}

    def test_nothing_is_kept_by_who_does_not_want_to_go_on(self, bucket: Bucket, uri: str, tmp_path: Path) -> None:
        self.interrupt(bucket, uri, tmp_path / "target", resume=False)
        assert not (tmp_path / "target").exists()

    def test_a_fetch_that_never_began_leaves_nothing(self, aws: Path) -> None:
        with pytest.raises(CheckpointError):
            checkpoints.fetch("s3://bucket/model")  # nobody listens there
        assert list(aws.iterdir()) == []


class TestIntegrity:
    @pytest.fixture
    def unsummed(self, aws: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
        """A bucket whose server has no checksums of its own."""
        (tmp_path / "s3" / "bucket").mkdir(parents=True)
        with FaultyS3(tmp_path / "s3", with_checksums=False) as server:
            monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
            yield Bucket(tmp_path / "s3" / "bucket", server)

    def test_a_header_that_came_damaged_is_read_again(self, unsummed: Bucket, tmp_path: Path) -> None:
        uri = unsummed.put({"model.safetensors": WEIGHTS})
        unsummed.server.inject(Fault("flip", offset=9, times=1))  # within the header: it is no JSON any more
        done = fetch_into(open_source(uri), tmp_path / "target")
        assert files_of(tmp_path / "target") == {"model.safetensors": WEIGHTS}
        assert done.evidence == {"": 1}
        assert len(unsummed.read) == 2

    def test_a_manifest_is_evidence_where_the_server_has_none(self, unsummed: Bucket, tmp_path: Path) -> None:
        data = os.urandom(3 * MIB)
        listed = {
            "a": Listed(len(data), checksums.crc64nvme(data), None),
            "b": Listed(len(data), None, hashlib.sha256(data).hexdigest()),
        }
        uri = unsummed.put({"a": data, "b": data, "MANIFEST.json": manifest.written(listed)})
        done = fetch_into(open_source(uri), tmp_path / "target", options=SMALL_PARTS)
        assert done.evidence == {"CRC64NVME": 1, "SHA-256": 1, "": 1}

    @pytest.mark.parametrize("known", ["crc64nvme", "sha256"])
    def test_a_flipped_byte_is_read_again_and_named(
        self, unsummed: Bucket, tmp_path: Path, known: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        data = os.urandom(3 * MIB)
        crc, sha = checksums.crc64nvme(data), hashlib.sha256(data).hexdigest()
        listed = {"a": Listed(len(data), *((crc, None) if known == "crc64nvme" else (None, sha)))}
        uri = unsummed.put({"a": data, "MANIFEST.json": manifest.written(listed)})
        unsummed.server.inject(Fault("flip", key="model/a", offset=2_000_000, times=1))
        told: list[tuple[int, int]] = []
        with caplog.at_level(logging.WARNING, "bloomery"):
            seen = lambda done, total: told.append((done, total))  # noqa: E731
            fetch_into(open_source(uri), tmp_path / "target", options=SMALL_PARTS, seen=seen)
        assert files_of(tmp_path / "target")["a"] == data
        assert told[-1][0] == told[-1][1] > 2 * len(data)  # both readings are counted, and expected
        assert f"{uri}/a: byte 2000000 was wrong in one reading, and is right now" in caplog.text

    def test_a_file_that_is_not_what_its_checksum_says_is_never_published(
        self, unsummed: Bucket, tmp_path: Path
    ) -> None:
        listed = {"a": Listed(100, 5, None)}
        uri = unsummed.put({"a": bytes(100), "MANIFEST.json": manifest.written(listed)})
        with pytest.raises(CheckpointError, match=r"model/a is damaged: .* both gave the same bytes 0-99: .*upload it"):
            fetch_into(open_source(uri), tmp_path / "target")
        assert files_of(tmp_path / "target") == {}
        assert not (tmp_path / "target" / ".fetching" / "files" / "a").exists()


class TestReports:
    def test_progress_is_reported_and_logged(self, bucket: Bucket, caplog: pytest.LogCaptureFixture) -> None:
        card = b"---\nlicense: bigscience-bloom-rail-1.0\n---\n"
        with caplog.at_level(logging.INFO, "bloomery"):
            checkpoints.fetch(bucket.put({**CHECKPOINT, "README.md": card}))
        assert re.search(r"fetching checkpoint s3://bucket/model: 0\.3 MB in [\d.]+ s \([\d.]+ MB/s\)", caplog.text)
        assert "licence: bigscience-bloom-rail-1.0" in caplog.text
        status = rank.current.status()
        assert (status.phase, status.percent) == ("fetching checkpoint", 100.0)

    def test_a_disk_that_is_too_small_is_said_before_fetching(
        self, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uri = bucket.put(CHECKPOINT)
        # No small disk can be mounted here, so the answer of the system call is made up.
        monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
        with pytest.raises(CheckpointError, match=r"needs 0\.3 MB in .*, where 0\.0 MB are free: name a directory"):
            checkpoints.fetch(uri)
        assert bucket.read == []

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
    def test_somebody_elses_directory_is_not_trusted(self, bucket: Bucket) -> None:
        uri = bucket.put(CHECKPOINT)
        os.chown(checkpoints.fetch(uri), 12345, -1)
        with pytest.raises(CheckpointError, match="belongs to somebody else"):
            checkpoints.fetch(uri)

    def test_a_link_that_leaves_the_directory_is_not_followed(self, bucket: Bucket, tmp_path: Path) -> None:
        (tmp_path / "outside").mkdir()
        (tmp_path / "target").mkdir()
        (tmp_path / "target" / "tokenizer").symlink_to(tmp_path / "outside")
        with pytest.raises(CheckpointError, match="tokenizer is a link that leaves"):
            fetch_into(open_source(bucket.put(CHECKPOINT)), tmp_path / "target")
        assert list((tmp_path / "outside").iterdir()) == []

    def test_fetching_needs_no_torch(self) -> None:
        script = (
            "import sys; from bloomery import checkpoints; print([m for m in ('torch', 'boto3') if m in sys.modules])"
        )
        environment = {**os.environ, "PYTHONPATH": str(CONTAINER)}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == "[]"
