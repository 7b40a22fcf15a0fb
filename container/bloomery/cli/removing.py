"""``bloomery delete``: endpoints and what belongs to them; with leave, checkpoints and archives."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from bloomery import cli
from bloomery.checkpoints.progress import megabytes
from bloomery.cli.account import Account, confirm, show
from bloomery.cli.interruption import terminable
from bloomery.errors import ConfigurationError, SageMakerError
from bloomery.sagemaker.operating import prefix
from bloomery.sagemaker.operating.expiry import expired
from bloomery.sagemaker.operating.prefix import Prefix
from bloomery.sagemaker.operating.removal import Removal, planned, remove
from bloomery.sagemaker.session import Session


@dataclass(frozen=True)
class Wanted:
    """As the command line has it."""

    names: tuple[str, ...]
    expired: bool
    checkpoint: str | None
    artefacts: bool
    keep_model: bool
    wait: bool
    dry_run: bool
    yes: bool


def delete(account: Account, wanted: Wanted) -> int:
    """Do it, or print its requests; the exit code."""
    if not wanted.names and not wanted.expired and wanted.checkpoint is None:
        raise ConfigurationError("nothing to delete: name an endpoint, or give --expired or --checkpoint")
    with terminable(), account.open() as session:
        names = _names(session, wanted)
        plans = [planned(session, name, keep_model=wanted.keep_model) for name in names]
        data = _data(session, wanted, plans)
        for plan in plans:
            _explain(plan)
        if wanted.dry_run:
            show(step.request for plan in plans for step in plan.steps)
            show(request for each in data for request in each.requests())
            return cli.OK
        asked = [f"endpoint {each.name}" for each in plans if each.name not in wanted.names and each.steps]
        asked += [_described(each) for each in data]
        if asked and not confirm(f"Delete {', '.join(asked)} in {session.region}?", wanted.yes):
            print("nothing was deleted", file=sys.stderr)
            return cli.REFUSED
        failed = [name for name in names if not _remove(session, name, wanted)]
        for each in () if failed else data:  # an endpoint that stays may need them
            print(f"{each.uri}: {prefix.delete(session, each)} objects deleted")
        unknown = [plan.name for plan in plans if not plan.steps and plan.name in wanted.names]
        return cli.REFUSED if failed or unknown else cli.OK


def _names(session: Session, wanted: Wanted) -> list[str]:
    found = dict.fromkeys(wanted.names)
    if wanted.expired:
        gone = expired(session, datetime.now(UTC))
        for each in gone:
            print(f"endpoint {each.name} has expired at {each.at:%Y-%m-%d %H:%M} UTC", file=sys.stderr)
            found[each.name] = None
        if not gone:
            print(f"no endpoint in {session.region} has expired", file=sys.stderr)
    return list(found)


def _data(session: Session, wanted: Wanted, plans: Sequence[Removal]) -> list[Prefix]:
    """What lies in S3 and is to go. Raises RemovalError when an endpoint that stays uses it."""
    uris = [wanted.checkpoint] if wanted.checkpoint is not None else []
    if wanted.artefacts:
        uris += prefix.uploaded_archives(session, [name for plan in plans for name in plan.models])
    found = [prefix.below(session, uri) for uri in uris]
    for each in found:
        prefix.check_unused(session, each, [plan.name for plan in plans])
        if not each.keys and not each.unfinished:
            print(f"{each.uri}: nothing is there", file=sys.stderr)
    return [each for each in found if each.keys or each.unfinished]


def _described(found: Prefix) -> str:
    text = f"{found.uri} ({len(found.keys)} objects, {megabytes(found.size)}"
    text += f", {len(found.unfinished)} uploads that broke off" if found.unfinished else ""
    text += "; the bucket keeps old versions, which go on to cost" if found.versioned else ""
    return text + ")"


def _explain(plan: Removal) -> None:
    if not plan.steps:
        print(f"there is no endpoint {plan.name}, and nothing of it is left", file=sys.stderr)
    for each in plan.kept:
        print(f"kept: {each.what}: {each.why}", file=sys.stderr)
    for note in plan.notes:
        print(f"note: {note}", file=sys.stderr)


def _remove(session: Session, name: str, wanted: Wanted) -> bool:
    """Whether all went well."""
    try:
        remove(session, name, keep_model=wanted.keep_model, wait=wanted.wait, seen=lambda line: print(line, flush=True))
    except SageMakerError as error:
        print(f"bloomery: {name}: {error}", file=sys.stderr)
        return False
    return True
