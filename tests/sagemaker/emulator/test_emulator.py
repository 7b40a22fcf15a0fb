"""The process: how it starts, ends, dies and comes back."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
from tests.sagemaker.emulator.conftest import configured, status
from tests.support.emulator import ROLE, Emulator, emulating, environment, until

NEVER = "/"  # a file that is always there, for the stand-in's HOLD


def children(emulator: Emulator) -> list[psutil.Process]:
    emulator.wait_for(r"(?m)^ready: ")
    return psutil.Process(emulator.process.pid).children(recursive=True)


def test_it_stops_at_a_signal_and_leaves_nothing(tmp_path: Path) -> None:
    with emulating(tmp_path / "state", stand_in=True) as emulator:
        processes = children(emulator)
        assert len(processes) == 1  # moto
        assert emulator.stop() == 0
        assert "closed with 30 s" in emulator.log()
        assert psutil.wait_procs(processes, timeout=30)[1] == []


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    with emulating(tmp_path / "state", stand_in=True, env={"STAND_IN_CLOSES_NEVER": "yes"}) as emulator:
        emulator.wait_for(r"(?m)^ready: ")
        emulator.process.send_signal(signal.SIGINT)
        emulator.wait_for("a second signal ends them at once")
        emulator.process.send_signal(signal.SIGINT)
        assert emulator.process.wait(30) == 130
        assert "closed with 0 s" in emulator.log()


def test_moto_dies_with_a_killed_emulator(tmp_path: Path) -> None:
    with emulating(tmp_path / "state", stand_in=True) as emulator:
        processes = children(emulator)
        emulator.kill()
        assert psutil.wait_procs(processes, timeout=30)[1] == []


def test_without_moto_it_ends_and_says_so(tmp_path: Path) -> None:
    with emulating(tmp_path / "state", stand_in=True) as emulator:
        (moto,) = children(emulator)
        moto.kill()
        assert emulator.process.wait(30) == 1
        assert "moto, which stands in for S3 and others, has died" in emulator.log()


def test_after_a_kill_everything_is_back(tmp_path: Path) -> None:
    state = tmp_path / "state"
    hold = tmp_path / "hold"
    hold.touch()
    with emulating(state, stand_in=True, log=tmp_path / "first.log") as emulator:
        sagemaker = emulator.client("sagemaker")
        configured(sagemaker, "serving")
        configured(sagemaker, "creating", HOLD=str(hold))
        configured(sagemaker, "failing", FAILURE="on purpose")
        configured(sagemaker, "deleting", STOPPING="600")
        names = ("serving", "creating", "failing", "deleting")
        for name in names:
            sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name, Tags=[{"Key": "k", "Value": name}])
        settled = {"serving": "InService", "creating": "Creating", "failing": "Failed", "deleting": "InService"}
        until(lambda: {name: status(sagemaker, name) for name in names} == settled, "the endpoints have settled")
        sagemaker.delete_endpoint(EndpointName="deleting")
        before = {name: sagemaker.describe_endpoint(EndpointName=name) for name in names[:3]}
        emulator.kill()
    hold.unlink()
    with emulating(state, stand_in=True, log=tmp_path / "second.log") as emulator:
        sagemaker = emulator.client("sagemaker")
        expected = {"serving": "InService", "creating": "InService", "failing": "Failed"}

        def listed() -> dict[str, str]:
            found = sagemaker.list_endpoints()["Endpoints"]
            return {endpoint["EndpointName"]: endpoint["EndpointStatus"] for endpoint in found}

        until(lambda: listed() == expected, "the endpoints are back")
        for name, old in before.items():
            new = sagemaker.describe_endpoint(EndpointName=name)
            for member in ("EndpointArn", "CreationTime", "EndpointConfigName"):
                assert new[member] == old[member]
            assert sagemaker.list_tags(ResourceArn=new["EndpointArn"])["Tags"] == [{"Key": "k", "Value": name}]
        assert sagemaker.describe_endpoint(EndpointName="failing")["FailureReason"] == "on purpose"
        assert sagemaker.describe_model(ModelName="serving")["PrimaryContainer"]["Image"] == "image"


def test_an_orderly_end_keeps_endpoints_for_the_next_start(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with emulating(state, stand_in=True, log=tmp_path / "first.log") as emulator:
        sagemaker = emulator.client("sagemaker")
        configured(sagemaker, "creating", HOLD=NEVER)
        sagemaker.create_endpoint(EndpointName="creating", EndpointConfigName="creating")
        assert emulator.stop() == 0
    with emulating(state, stand_in=True, log=tmp_path / "second.log") as emulator:
        assert status(emulator.client("sagemaker"), "creating") == "Creating"


def test_two_emulators_do_not_share_a_state_directory(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with emulating(state, stand_in=True, log=tmp_path / "first.log") as first:
        first.wait_for(r"(?m)^ready: ")
        with emulating(state, log=tmp_path / "second.log") as second:
            assert second.process.wait(30) == 2
        assert f"in use by another emulator (process {first.process.pid})" in second.log()
        assert "--state DIR" in second.log()
        first.client("sagemaker").list_models()


def test_two_emulators_do_not_meet(tmp_path: Path) -> None:
    with (
        emulating(tmp_path / "one", stand_in=True) as one,
        emulating(tmp_path / "two", stand_in=True) as two,
    ):
        one.client("sagemaker").create_model(ModelName="mine", ExecutionRoleArn=ROLE, PrimaryContainer={"Image": "i"})
        one.client("s3").create_bucket(Bucket="mine", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
        assert two.client("sagemaker").list_models()["Models"] == []
        assert two.client("s3").list_buckets()["Buckets"] == []


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    with emulating(tmp_path / "file" / "state", log=tmp_path / "log") as emulator:
        assert emulator.process.wait(30) == 2
    assert re.search(r"the state directory \S+/file/state cannot be used", emulator.log())


def test_nothing_of_the_users_account_reaches_moto(tmp_path: Path) -> None:
    secret = "the-users-own-secret-key"
    env = {"AWS_SECRET_ACCESS_KEY": secret, "AWS_PROFILE": "production", "AWS_SESSION_TOKEN": secret}
    with emulating(tmp_path / "state", stand_in=True, env=env) as emulator:
        (moto,) = children(emulator)
        assert secret not in moto.environ().values()
        assert "AWS_PROFILE" not in moto.environ()


def test_state_is_the_users_alone(tmp_path: Path) -> None:
    with emulating(tmp_path / "state", stand_in=True) as emulator:
        emulator.wait_for(r"(?m)^ready: ")
        assert (tmp_path / "state").stat().st_mode & 0o077 == 0
        with sqlite3.connect(tmp_path / "state" / "sagemaker.sqlite") as database:
            assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        database.close()


def test_the_default_state_directory_is_below_xdg_state_home(tmp_path: Path) -> None:
    program = "from bloomery.sagemaker.emulator.state import default_directory; print(default_directory())"

    def found(**env: Any) -> str:
        return subprocess.run(
            [sys.executable, "-c", program], env=environment(env), capture_output=True, text=True, check=True
        ).stdout.strip()

    assert found(XDG_STATE_HOME=str(tmp_path)) == os.path.join(tmp_path, "bloomery", "sagemaker-local")
    assert found(XDG_STATE_HOME="", HOME="/home/me") == "/home/me/.local/state/bloomery/sagemaker-local"


def test_it_imports_no_torch(tmp_path: Path) -> None:
    with emulating(tmp_path / "state") as emulator:
        emulator.wait_for(r"(?m)^ready: ")
        maps = Path(f"/proc/{emulator.process.pid}/maps").read_text()
        assert "aiohttp" in maps
        assert "site-packages/torch" not in maps
