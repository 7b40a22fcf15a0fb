"""``bloomery sagemaker-local``: SageMaker on this machine, and what a client's environment needs for it."""

from __future__ import annotations

import importlib.util
import os
import shlex
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bloomery import cli
from bloomery.cli import logs
from bloomery.errors import ConfigurationError
from bloomery.http_api import listen
from bloomery.processes import open_files
from bloomery.settings.address import Address
from bloomery.settings.secret import redact

if TYPE_CHECKING:
    from bloomery.sagemaker.emulator.deployment import Hosting, Surroundings

HOST, PORT = "127.0.0.1", 8099
ACCOUNT = "123456789012"  # moto's
_REGION = "us-east-1"
_KEY = "bloomery-local"  # no key of any account: a client that misses the endpoint is refused by AWS
_NEEDED = ("moto", "flask", "flask_cors", "boto3")
_LOOPBACK = ("localhost", "127.", "::1", "[::1]")


@dataclass(frozen=True)
class Wanted:
    """The command line."""

    host: str | None
    port: int | None
    state: str | None
    images: list[str]
    log_bodies: str | None
    limits: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    scaler_period: float | None = None
    tables: str | None = None


def emulate(wanted: Wanted, host_endpoints: Callable[[Surroundings], Hosting] | None = None) -> int:
    """Serve until told to stop; the exit code. ``host_endpoints`` makes what runs endpoints: processes, by default."""
    _check_installed()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(cli.OK))  # until the emulator has handlers of its own

    import asyncio

    import uvloop

    from bloomery.sagemaker.emulator import emulator
    from bloomery.sagemaker.emulator.containers import hosting
    from bloomery.sagemaker.emulator.emulator import Outcome
    from bloomery.sagemaker.emulator.faults import Faults, Rule
    from bloomery.sagemaker.emulator.invoking.limits import Limits
    from bloomery.sagemaker.emulator.state import StateDirectory, default_directory

    open_files.allow_many()
    faults = Faults()
    for text in wanted.faults:
        faults.add(Rule.parse(text))
    host_endpoints = host_endpoints or partial(hosting.host, limits=Limits.read(wanted.limits), faults=faults)
    host = wanted.host or HOST
    listener = listen.bind(Address("http", host, PORT if wanted.port is None else wanted.port))
    try:
        with StateDirectory(Path(wanted.state).expanduser() if wanted.state else default_directory()) as state:
            logs.configure()
            _say(f"listening on {listener.url}; state in {state.path}")
            if not host.startswith(_LOOPBACK):
                _say(f"warning: whoever reaches {listener.url} can run programs on this machine")
            # What listens on every address is called by loopback's from here.
            here = listener.url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
            around = _surroundings(wanted, here, state.fleet, os.environ)
            door = emulator.Door(listener.socket, host, here)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                outcome = runner.run(emulator.run(door, around, state, host_endpoints, _say))
    finally:
        listener.close()
    return {
        Outcome.STOPPED: cli.OK,
        Outcome.INTERRUPTED: cli.INTERRUPTED,
        Outcome.FAILED: cli.MODEL_FAILED,
    }[outcome]


def exports(host: str | None, port: int | None, environment: Mapping[str, str], *, sdk: bool = False) -> str:
    """Shell lines after which AWS clients use the emulator, and cannot reach an account if they miss it.

    ``sdk``: the SageMaker Python SDK, too, which needs more than variables (``sagemaker.sdk_shim``).
    """
    values = {"AWS_ENDPOINT_URL": str(Address("http", host or HOST, PORT if port is None else port))}
    lines = []
    if _external_s3(environment) and "AWS_ACCESS_KEY_ID" in environment:
        lines.append("# AWS_ENDPOINT_URL_S3 is set: the present keys stay, they are taken to be that server's")
    else:
        values |= {"AWS_ACCESS_KEY_ID": _KEY, "AWS_SECRET_ACCESS_KEY": _KEY}
    region = _region(environment)
    values |= {"AWS_REGION": region, "AWS_DEFAULT_REGION": region, "AWS_EC2_METADATA_DISABLED": "true"}
    if sdk:
        shim = Path(cli.__file__).parents[1] / "sagemaker" / "sdk_shim"
        values["PYTHONPATH"] = os.pathsep.join([str(shim), *filter(None, [environment.get("PYTHONPATH")])])
    # What would lead a client elsewhere in spite of the above.
    stray = {"AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_SESSION_TOKEN", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"}
    stray |= {name for name in environment if name.startswith("AWS_ENDPOINT_URL_")} - {"AWS_ENDPOINT_URL_S3"}
    lines += [f"export {name}={shlex.quote(value)}" for name, value in values.items()]
    return "\n".join([*lines, "unset " + " ".join(sorted(stray)), ""])


def _surroundings(wanted: Wanted, url: str, state: Path, environment: Mapping[str, str]) -> Surroundings:
    from bloomery.sagemaker.emulator.account.account_tables import AccountTables
    from bloomery.sagemaker.emulator.deployment import ImageRule, Surroundings

    rules = []
    for given in wanted.images:
        pattern, equals, command = given.partition("=")
        if not (pattern and equals and command):
            raise ConfigurationError(
                f"--image takes REGEX=COMMAND, such as 'my-image.*=python3 serve.py'; got {given!r}"
            )
        rules.append(ImageRule(pattern, command))
    external = _external_s3(environment)
    return Surroundings(
        url=url,
        region=_region(environment),
        account=ACCOUNT,
        state=state,
        s3_url=external or url,
        access_key=environment.get("AWS_ACCESS_KEY_ID", _KEY) if external else _KEY,
        secret_key=environment.get("AWS_SECRET_ACCESS_KEY", _KEY) if external else _KEY,
        images=tuple(rules),
        log_bodies=Path(wanted.log_bodies) if wanted.log_bodies else None,
        scaler_period=wanted.scaler_period,
        tables=AccountTables.read(Path(wanted.tables)) if wanted.tables else AccountTables(),
    )


def _check_installed() -> None:
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        raise ConfigurationError('sagemaker-local needs moto and boto3; install them: pip install "bloomery[emulator]"')


def _external_s3(environment: Mapping[str, str]) -> str | None:
    return environment.get("AWS_ENDPOINT_URL_S3") or None


def _region(environment: Mapping[str, str]) -> str:
    return environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or _REGION


def _say(line: str) -> None:
    print(redact(line), flush=True)
