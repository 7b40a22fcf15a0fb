"""``bloomery check``: what becomes of the settings of LMI, DJLServing and TGI."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bloomery import cli
from bloomery.errors import ConfigurationError
from bloomery.settings import migration, variable_text
from bloomery.settings.migration import Finding
from bloomery.settings.migration_row import Verdict
from bloomery.settings.secret import redact

_VERDICTS: tuple[Verdict, ...] = ("refused", "different", "same")


def check(directory: str | None, env: str | None, env_now: bool, as_json: bool) -> int:
    """Print a verdict for each setting; the exit code says whether one is refused."""
    findings: list[Finding] = []
    if directory is not None:
        findings += migration.of_directory(Path(directory).expanduser())
    if env is not None:
        findings += migration.of_variables(variable_text.parse(*_text(env)), "standard input" if env == "-" else env)
    if env_now:
        findings += migration.of_variables(os.environ, "environment", known_only=True)
    if directory is None and env is None and not env_now:
        raise ConfigurationError(
            "nothing to check: name a model directory, --env FILE (or - for standard input), or --env-now"
        )
    findings.sort(key=lambda finding: _VERDICTS.index(finding.verdict))
    sys.stdout.write(redact(_document(findings) if as_json else _table(findings)))
    return cli.REFUSED if any(finding.verdict == "refused" for finding in findings) else cli.OK


def _text(env: str) -> tuple[str, str]:
    """What is to be read, and its name."""
    if env == "-":
        return sys.stdin.read(), "standard input"
    try:
        return Path(env).expanduser().read_text("utf-8"), env
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--env {env} cannot be read: {error}") from error


def _document(findings: Sequence[Finding]) -> str:
    return json.dumps([asdict(finding) for finding in findings], indent=2) + "\n"


def _table(findings: Sequence[Finding]) -> str:
    lines = []
    for finding in findings:
        said = f"{finding.name}={finding.value}" if finding.value else finding.name
        lines.append(f"{finding.verdict:<10}{said}  ({finding.origin})\n")
        lines.append(f"{'':10}  {finding.how}\n" if finding.how else "")
    count = Counter(finding.verdict for finding in findings)
    lines.append(", ".join(f"{count[verdict]} {verdict}" for verdict in _VERDICTS) + "\n")
    return "".join(lines)
