"""``bloomery delete``: endpoints and what belongs to them; with leave, checkpoints and archives."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from bloomery import cli
from bloomery.checkpoints.progress import megabytes
from bloomery.cli import human
from bloomery.cli.account import Account, confirm, show
from bloomery.cli.interruption import terminable
from bloomery.errors import ConfigurationError, RemovalError, SageMakerError
from bloomery.sagemaker.operating import prefix
from bloomery.sagemaker.operating.expiry import expired
from bloomery.sagemaker.operating.prefix import Prefix
from bloomery.sagemaker.operating.removal import Removal, perform, planned
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
        plans = [
            planned(session, name, keep_model=wanted.keep_model, leaving=names[:number])
            for number, name in enumerate(names)
        ]
        data = _data(session, wanted, plans)
        for plan in plans:
            _explain(plan)
        if wanted.dry_run:
            show(step.request for plan in plans for step in plan.steps)
            show(request for each in data for request in each.requests())
            return cli.OK
        asked = [f"endpoint {each.name}" for each in plans if each.name not in wanted.names and each.steps]
        asked += [f"{human.count(len(each.keys), 'object')} at {each.uri}" for each in data]
        if asked and not confirm(f"Delete {', '.join(asked)} in {session.region}?", wanted.yes):
            print("nothing was deleted", file=sys.stderr)
            return cli.REFUSED
        failed, all_gone = _remove(session, plans, wanted)
        for each in () if failed else data:  # an endpoint that stays may need them
            print(f"{each.uri}: {human.count(prefix.delete(session, each), 'object')} deleted")
        unknown = [plan.name for plan in plans if not plan.steps and plan.name in wanted.names]
        return cli.REFUSED if failed or unknown or not all_gone else cli.OK


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
    found = []
    if wanted.checkpoint is not None:
        found.append(_unused(session, wanted.checkpoint, plans))
    models = [name for plan in plans for name in plan.models] if wanted.artefacts else []
    for uri in prefix.uploaded_archives(session, models):
        try:
            found.append(_unused(session, uri, plans))
        except RemovalError as error:  # equal archives are one object: another endpoint may have the same
            print(f"kept: {error}", file=sys.stderr)
    return [each for each in found if each.keys or each.unfinished]


def _unused(session: Session, uri: str, plans: Sequence[Removal]) -> Prefix:
    """What lies at ``uri``; RemovalError when an endpoint that stays uses it."""
    found = prefix.below(session, uri)
    unseen = prefix.check_unused(session, found, [plan.name for plan in plans])
    print(f"to delete: {_described(found)}", file=sys.stderr)
    if unseen:
        print(f"note: you may not see whether {', '.join(unseen)} uses it", file=sys.stderr)
    return found


def _described(found: Prefix) -> str:
    text = f"{found.uri} ({human.count(len(found.keys), 'object')}, {megabytes(found.size)}"
    text += f", {human.count(len(found.unfinished), 'upload')} broken off" if found.unfinished else ""
    text += "; the bucket keeps old versions, which go on to cost" if found.versioned else ""
    return text + ")"


def _explain(plan: Removal) -> None:
    if not plan.steps:
        print(f"there is no endpoint {plan.name}, and nothing of it is left", file=sys.stderr)
    for each in plan.kept:
        print(f"kept: {each.what}: {each.why}", file=sys.stderr)
    for note in plan.notes:
        print(f"note: {note}", file=sys.stderr)


def _remove(session: Session, plans: Sequence[Removal], wanted: Wanted) -> tuple[list[str], bool]:
    """The names of endpoints that are left, and whether nothing else is."""
    done: list[str] = []
    failed: list[str] = []
    all_gone = True
    for plan in plans:
        name = plan.name
        try:
            if failed:  # which was to be gone by now
                plan = planned(session, name, keep_model=wanted.keep_model, leaving=done)
            removal = perform(session, plan, wait=wanted.wait, seen=lambda line: print(line, flush=True))
            all_gone = all_gone and removal.complete
            done.append(name)
        except SageMakerError as error:
            print(f"bloomery: {name}: {error}", file=sys.stderr)
            failed.append(name)
        except KeyboardInterrupt:
            print(f"{name} may not be gone in whole: `bloomery delete {name}` again removes the rest", file=sys.stderr)
            raise
    return failed, all_gone
