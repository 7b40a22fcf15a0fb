"""bloomery ls, status, logs, autoscale, cost, delete: what they print, and their exit codes."""

from __future__ import annotations

import contextlib
import io
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.sagemaker.operating.conftest import ECHO, TYPE, component, endpoint, fault, in_status, model
from tests.support.emulator import REGION, Emulator, emulating, until

from bloomery import cli
from bloomery.cli import autoscaling, costing, following, human, listing, removing, showing
from bloomery.cli.account import Account
from bloomery.errors import ConfigurationError
from bloomery.sagemaker.operating.expiry import CREATED_BY, EXPIRES
from bloomery.sagemaker.operating.removal import remove
from bloomery.sagemaker.session import Session

OURS = {CREATED_BY: "bloomery 0", EXPIRES: "2026-11-24T00:00:00Z"}
NOTHING = autoscaling.Wanted("shown", None, None, None, None, None, None, False, False, False, False)
Printed = pytest.CaptureFixture[str]


class Screen(io.StringIO):
    """Says when something stands on it."""

    def __init__(self, awaited: str) -> None:
        super().__init__()
        self._awaited, self.shown = awaited, threading.Event()

    def write(self, text: str) -> int:
        if self._awaited in text:
            self.shown.set()
        return super().write(text)


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with emulating(tmp_path_factory.mktemp("operating") / "state", *ECHO) as running:
        yield running


@pytest.fixture(scope="module")
def session(emulator: Emulator) -> Iterator[Session]:
    with Account("local", REGION, None, emulator.url).open() as opened:
        yield opened


@dataclass(frozen=True)
class Opened(Account):
    """One session for all commands: half a second goes into each one's clients."""

    session: Any = None

    def open(self) -> Any:
        return contextlib.nullcontext(self.session)


@pytest.fixture(scope="module")
def account(session: Session) -> Account:
    return Opened(session=session)


@pytest.fixture(scope="module")
def there(session: Session) -> str:
    """An endpoint of ours, in service."""
    return endpoint(session.client("sagemaker"), "shown", tags=OURS)


def wanted(*names: str, **given: Any) -> removing.Wanted:
    defaults: dict[str, Any] = {
        "expired": False,
        "checkpoint": None,
        "artefacts": False,
        "keep_model": False,
        "wait": True,
        "dry_run": False,
        "yes": False,
    }
    return removing.Wanted(names, **(defaults | given))


def test_ls_lists_what_bloomery_made_and_counts_the_rest(
    account: Account, session: Session, there: str, capsys: Printed
) -> None:
    endpoint(session.client("sagemaker"), "theirs")
    assert listing.show(account, False, 10.0, False) == cli.OK
    out, err = capsys.readouterr()
    header, line = out.splitlines()
    assert header.split() == ["NAME", "STATUS", "AGE", "INSTANCES", "PER", "HOUR", "SO", "FAR", "EXPIRES", "IN"]
    assert re.fullmatch(rf"shown +InService +.*s +{TYPE} × 1 +\$10\.00 +\$\S+ +.* ago", line)
    assert "1 more, which bloomery did not make" in err
    listing.show(account, True, None, True)
    assert {each["name"]: each["cost_per_hour"] for each in json.loads(capsys.readouterr().out)} == {
        "theirs": None,
        "shown": None,
    }
    removing.delete(account, wanted("theirs"))


def test_status_says_by_its_exit_code_how_it_is(
    account: Account, session: Session, there: str, capsys: Printed
) -> None:
    sagemaker = session.client("sagemaker")
    assert showing.status(account, there, False, False) == 0
    until(
        lambda: showing.status(account, there, False, False) == 0 and "started with serve" in capsys.readouterr().out,
        "its log",
    )
    endpoint(sagemaker, "broken", environment={"DIE_AT_START": "3"}, wait=False)
    in_status(sagemaker, "broken", "Failed")
    assert showing.status(account, "broken", True, False) == 1
    assert "reason: The primary container for production variant V did not pass" in capsys.readouterr().out
    removing.delete(account, wanted("broken"))


def test_status_is_watched_until_nothing_is_going_on(
    account: Account, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint(session.client("sagemaker"), "slow", environment={"SLOW_START": "300"}, wait=False)
    assert showing.status(account, "slow", False, False) == 3
    screen = Screen("the container is starting")

    def take_away() -> None:
        screen.shown.wait(60)
        remove(session, "slow")

    user = threading.Thread(target=take_away)
    user.start()
    monkeypatch.setattr("sys.stderr", screen)
    assert showing.status(account, "slow", True, False) == 1
    user.join()
    assert "Creating: the container is starting" in screen.getvalue()
    assert screen.getvalue().endswith("endpoint slow is gone\n")


def test_logs_of_several_instances_name_them(account: Account, session: Session, there: str, capsys: Printed) -> None:
    def lines(name: str, **given: Any) -> list[str]:
        choice: dict[str, Any] = {"follow": False, "since": None, "tail": None, "grep": None}
        following.logs(account, following.Wanted(name, **(choice | given)))
        return capsys.readouterr().out.splitlines()

    until(lambda: lines(there), "its log")
    assert re.fullmatch(r"[0-9:.]{12}  started with serve", lines(there)[0])
    endpoint(session.client("sagemaker"), "double", variant={"InitialInstanceCount": 2})
    for number in range(4):
        body = json.dumps({"do": {"sleep": 0, "number": number}})
        session.runtime.invoke_endpoint(EndpointName="double", Body=body)["Body"].read()
    until(lambda: len(lines("double")) == 6, "all lines")
    found = [re.fullmatch(r"[0-9:.]{12}  (V/i-\w+)  (.*)", line) for line in lines("double")]
    assert all(found)
    assert len({match[1] for match in found if match}) == 2
    assert [match[2][-2] for match in found if match and match[2].startswith("asked")] == ["0", "1", "2", "3"]
    assert len(lines("double", tail=2)) == 2
    assert len(lines("double", grep='"number": [12]')) == 2
    assert lines("double", grep='"number": [12]', tail=1)[0].endswith('"number": 2}')
    assert lines("double", since="2999-01-01T00:00") == []
    removing.delete(account, wanted("double"))
    assert len(lines("double")) >= 6  # the log outlives its endpoint
    capsys.readouterr()
    following.logs(account, following.Wanted("absent", False, None, None, None))
    assert "there is no endpoint absent in us-west-2, and no log of one" in capsys.readouterr().err


def test_a_log_is_followed_until_its_endpoint_is_gone(
    account: Account, session: Session, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint(session.client("sagemaker"), "followed")
    screen = Screen("started with serve")

    def use_and_remove() -> None:
        screen.shown.wait(60)
        for number in range(3):
            body = json.dumps({"do": {"sleep": 0, "number": number}})
            session.runtime.invoke_endpoint(EndpointName="followed", Body=body)["Body"].read()
        remove(session, "followed")

    user = threading.Thread(target=use_and_remove)
    user.start()
    monkeypatch.setattr("sys.stdout", screen)
    following.logs(account, following.Wanted("followed", True, None, None, "asked|started"))
    user.join()
    assert [line.partition("  ")[2] for line in screen.getvalue().splitlines()] == [
        "started with serve",
        *(f'asked to {{"sleep": 0, "number": {number}}}' for number in range(3)),
    ]
    assert capsys.readouterr().err == "endpoint followed is gone\n"


@pytest.mark.parametrize(("since", "grep", "told"), [("soon", None, "--since 'soon'"), (None, "(", "--grep '\\('")])
def test_a_wrong_choice_of_lines(account: Account, since: str | None, grep: str | None, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        following.logs(account, following.Wanted("shown", False, since, None, grep))


def test_autoscale_from_beginning_to_end(account: Account, there: str, capsys: Printed) -> None:
    asked = replace(NOTHING, least=1, most=3, concurrency=4.0)
    assert autoscaling.autoscale(account, replace(asked, dry_run=True)) == cli.OK
    requests = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["operation"] for each in requests] == ["RegisterScalableTarget", "PutScalingPolicy"]
    autoscaling.autoscale(account, replace(NOTHING, show=True))
    assert "nothing of shown scales" in capsys.readouterr().err
    autoscaling.autoscale(account, asked)
    assert capsys.readouterr().out == "endpoint/shown/variant/V: 1 to 3, 4 requests each\n"
    autoscaling.autoscale(account, replace(NOTHING, show=True))
    assert capsys.readouterr().out.splitlines()[:2] == [
        "endpoint/shown/variant/V: 1 now, 1 to 3",
        "  policy bloomery-concurrency: SageMakerVariantConcurrentRequestsPerModelHighResolution at 4",
    ]
    autoscaling.autoscale(account, replace(NOTHING, off=True))
    autoscaling.autoscale(account, replace(NOTHING, off=True))
    assert capsys.readouterr().out == "shown: scales no more\nshown: nothing of it scaled\n"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "give --min, --max and --concurrency; or --show; or --off"),
        ({"show": True, "off": True}, "or --show; or --off"),
        ({"least": 1, "show": True}, "or --show; or --off"),
        ({"least": 1}, "--max and --concurrency missing"),
    ],
)
def test_autoscale_is_told_one_thing(account: Account, given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        autoscaling.autoscale(account, replace(NOTHING, **given))


def test_cost_of_an_endpoint_and_of_a_throughput(account: Account, there: str, tmp_path: Path, capsys: Printed) -> None:
    report = tmp_path / "bench.json"
    report.write_text('{"throughput": {"requests_per_s": 2, "output_tokens_per_s": 500}}')
    assert costing.show(account, costing.Wanted(there, None, 1, 7.2, str(report), False)) == cli.OK
    assert capsys.readouterr().out.splitlines() == [
        f"1 × {TYPE}: $7.20 an hour each (as you say)",
        "per hour                   $7.20",
        "per month              $5,256.00  running all the time",
        "per 1,000 requests         $1.00  at 2 a second",
        "per million tokens         $4.00  at 500 a second",
    ]
    assert costing.show(account, costing.Wanted(there, None, 1, None, None, False)) == cli.REFUSED
    out, err = capsys.readouterr()
    assert "per hour                       ?" in out
    assert "give it with --price-per-hour" in err
    nowhere = Account("local", None, None, "http://127.0.0.1:1")  # arithmetic asks nobody
    assert costing.show(nowhere, costing.Wanted(None, "ml.p4d.24xlarge", 2, 37.688, None, True)) == cli.OK
    assert json.loads(capsys.readouterr().out)["per_hour"] == 75.376
    with pytest.raises(ConfigurationError, match="one of the two"):
        costing.show(account, costing.Wanted(None, None, 1, None, None, False))


def test_delete_asks_before_it_touches_what_was_not_named(
    account: Account, session: Session, there: str, capsys: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3 = session.client("s3")
    s3.create_bucket(Bucket="checkpoints", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket="checkpoints", Key="bloom/a", Body=b"x" * 2_000_000)
    endpoint(session.client("sagemaker"), "expired", tags={EXPIRES: "2026-11-24T00:00:00Z"})
    monkeypatch.setattr("sys.stdin", io.StringIO())
    data = {"checkpoint": "s3://checkpoints/bloom/"}
    with pytest.raises(ConfigurationError, match=r"Delete endpoint expired, endpoint shown in us-west-2.* --yes"):
        removing.delete(account, wanted(expired=True))
    with pytest.raises(ConfigurationError, match="Delete 1 object at s3://checkpoints/bloom/ in us-west-2"):
        removing.delete(account, wanted(**data))
    capsys.readouterr()
    assert removing.delete(account, wanted("expired", dry_run=True, **data)) == cli.OK
    out, err = capsys.readouterr()
    assert [json.loads(line)["operation"] for line in out.splitlines()] == [
        "DeleteEndpoint",
        "DeleteEndpointConfig",
        "DeleteModel",
        "DeleteObjects",
    ]
    assert "to delete: s3://checkpoints/bloom/ (1 object, 2.0 MB)" in err
    assert removing.delete(account, wanted("expired", yes=True, **data)) == cli.OK
    assert capsys.readouterr().out.splitlines()[-1] == "s3://checkpoints/bloom/: 1 object deleted"
    assert "Contents" not in s3.list_objects_v2(Bucket="checkpoints")


def test_several_with_one_model_take_it_with_the_last(
    emulator: Emulator, account: Account, session: Session, capsys: Printed
) -> None:
    sagemaker = session.client("sagemaker")
    model(sagemaker, "joint")
    for each in ("one", "two"):
        endpoint(sagemaker, each, model_name="joint")
    removing.delete(account, wanted("one", "two", dry_run=True))
    out, err = capsys.readouterr()
    assert [json.loads(line)["operation"] for line in out.splitlines()] == [
        "DeleteEndpoint",
        "DeleteEndpointConfig",
        "DeleteEndpoint",
        "DeleteEndpointConfig",
        "DeleteModel",
    ]
    assert err == "kept: model joint: used by two\n"
    fault(emulator, kind="ResourceLimitExceeded", operation="DeleteEndpointConfig", times=1)
    assert removing.delete(account, wanted("one", "two")) == cli.REFUSED
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "model joint: removed"
    assert "one: endpoint configuration one cannot be removed" in err
    assert removing.delete(account, wanted("one")) == cli.OK


def test_deleting_what_is_not_there_is_said(account: Account, capsys: Printed) -> None:
    assert removing.delete(account, wanted("absent")) == cli.REFUSED
    assert "there is no endpoint absent, and nothing of it is left" in capsys.readouterr().err
    with pytest.raises(ConfigurationError, match="nothing to delete"):
        removing.delete(account, wanted())


def test_components_are_shown_with_their_copies(account: Account, session: Session, capsys: Printed) -> None:
    sagemaker = session.client("sagemaker")
    endpoint(sagemaker, "parts", components=True)
    component(sagemaker, "parts", "part", copies=2)
    assert showing.status(account, "parts", False, False) == 0
    assert "component part: InService, 2 of 2 copies" in capsys.readouterr().out
    removing.delete(account, wanted("parts"))
    assert capsys.readouterr().out.splitlines() == [
        "inference component part: removed",
        "endpoint parts: removed",
        "endpoint configuration parts: removed",
    ]


@pytest.mark.parametrize(
    ("amount", "text"),
    [(None, "?"), (0.0, "$0.00"), (0.0034, "$0.0034"), (1.515, "$1.515"), (7.2, "$7.20"), (27512.24, "$27,512.24")],
)
def test_money(amount: float | None, text: str) -> None:
    assert human.money(amount) == text


@pytest.mark.parametrize(
    ("time", "text"),
    [(timedelta(seconds=59), "59s"), (timedelta(seconds=310), "5m 10s"), (timedelta(days=2, hours=3), "2d 3h")],
)
def test_spans(time: timedelta, text: str) -> None:
    assert human.span(time) == text
