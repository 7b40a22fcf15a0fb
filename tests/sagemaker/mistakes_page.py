"""Make every mistake on the emulator, and print docs/mistakes.md: ``scripts/mistakes``."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from tests.sagemaker.mistaken import BEFORE, Answer, Mistake, make, world
from tests.sagemaker.mistakes import MISTAKES


def main() -> int:
    """Make them all, and print the page of the documentation."""
    root = Path(tempfile.mkdtemp(prefix="bloomery-mistakes-"))
    rows, missed = [], []
    machine = f"{os.cpu_count()} cores, with a load of {os.getloadavg()[0]:.1f} before"
    try:
        (root / "world").mkdir()
        with world(root / "world") as here:
            for number, mistake in enumerate(MISTAKES):
                (root / str(number)).mkdir()
                answer = make(mistake, here, root / str(number))
                faults = [word for word in mistake.says if word not in answer.text]
                if faults or answer.code != mistake.code or answer.left:
                    missed.append(f"{mistake.title}: {answer}, without {faults}")
                rows.append((mistake, answer))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(page(rows, machine), end="")
    for each in missed:
        print(each, file=sys.stderr)
    return 1 if missed else 0


def page(rows: list[tuple[Mistake, Answer]], machine: str) -> str:
    """Markdown. ``machine``: where the seconds are from."""
    early = [answer for mistake, answer in rows if mistake.caught == BEFORE]
    times = sorted(answer.seconds for answer in early)
    lines = [
        f"| {mistake.title} | `bloomery {mistake.command.split()[0]}` | {mistake.caught} | {answer.seconds:.1f} |"
        for mistake, answer in rows
    ]
    return (
        f"{_INTRODUCTION}\n{len(early)} of {len(rows)} are caught before anything is created, in "
        f"{times[len(times) // 2]:.1f} s (median; the longest takes {times[-1]:.1f} s; {machine}).\n\n"
        "| mistake | command | caught | seconds |\n|---|---|---|---|\n"
        + "\n".join(lines)
        + "\n\n## What is answered\n"
        + "".join(_said(mistake, answer) for mistake, answer in rows)
    )


def _said(mistake: Mistake, answer: Answer) -> str:
    """The answer; of what the container has printed before it, the lines that say what and why."""
    before, word, after = answer.text.partition("bloomery: ")
    kept = re.findall(r"(?m)^[\d:]+ +(?:what: |to do: |\[sagemaker-local\] ).*$", before)
    text = "\n".join([*kept, (word + after).strip()])
    command = mistake.command.format(archive="s3://models/good/code-…/model.tar.gz")
    return f"\n**{mistake.title[0].upper()}{mistake.title[1:]}**\n\n```\n$ bloomery {command}\n{text}\n```\n"


_INTRODUCTION = """# Mistakes that a newcomer makes

Each row is a command with a mistake in it, run against the emulator: the answer has to name the mistake and what to do,
and nothing may be left in the account. `scripts/mistakes` prints this page; the tests make the same mistakes. Seconds
are those of the whole command.
"""

if __name__ == "__main__":
    sys.exit(main())
