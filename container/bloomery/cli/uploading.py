"""``bloomery upload``: a directory to a prefix in S3."""

from __future__ import annotations

from bloomery import cli
from bloomery.checkpoints.progress import megabytes
from bloomery.checkpoints.uploading.upload import Report, Step, upload
from bloomery.cli.bar import reporting
from bloomery.cli.interruption import terminable


def send(directory: str, uri: str, dry_run: bool, resume: bool, connections: int) -> int:
    """Do it, and print what was done with each file."""
    with terminable(), reporting() as seen:
        report = upload(directory, uri, dry_run=dry_run, resume=resume, connections=connections, seen=seen)
    for line in _lines(report, dry_run):
        print(line)
    return cli.OK


def _lines(report: Report, dry_run: bool) -> list[str]:
    lines = [
        f"{_word(step, dry_run):<12}{megabytes(step.file.size):>10}  {step.file.name}"
        for step in sorted(report.steps, key=lambda step: step.file.name)
    ]
    if report.others:
        some = ", ".join(report.others[:5]) + (" …" if len(report.others) > 5 else "")
        lines.append(f"{len(report.others)} other objects are there, which a fetch would take too: {some}")
    if report.unconfirmed:
        lines.append(
            f"the server keeps no CRC64NVME of {len(report.unconfirmed)} files, {report.unconfirmed[0]} for one: "
            "that they have arrived intact is known by their size only"
        )
    there = sum(step.file.size for step in report.steps if step.there)
    if dry_run:
        missing = sum(step.file.size for step in report.steps if not step.there)
        return [*lines, f"{report.uri}: {megabytes(missing)} would be sent, {megabytes(there)} are there"]
    rate = f"{megabytes(report.sent)} sent in {report.seconds:.1f} s"
    found = f", {megabytes(report.found)} of an earlier upload found" if report.found else ""
    return [*lines, f"{report.uri}: {rate}{found}, {megabytes(there)} were there"]


def _word(step: Step, dry_run: bool) -> str:
    if step.there:
        return "equal"
    if step.unfinished:
        return "would go on" if dry_run else "went on"
    return "would send" if dry_run else "sent"
