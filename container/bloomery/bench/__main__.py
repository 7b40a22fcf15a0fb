"""``python -m bloomery.bench``: ``engines`` compares the engines, ``echo`` measures the server alone, ``recovery`` how
soon it answers again when a rank is killed, ``fetch`` how fast checkpoints come from S3, ``emulator`` what the
SageMaker emulator costs, ``stream`` how fast
a checkpoint is in memory."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bloomery.bench import (
    checkpoints,
    echo,
    emulating,
    engines,
    fetching,
    fetching_report,
    recovery,
    report,
    startup,
    streaming,
)
from bloomery.bench.configurations import CONFIGURATIONS, Configuration
from bloomery.errors import BloomeryError, ConfigurationError
from bloomery.processes.machine import cores, processor

# Above this share of the cores taken by others, configurations with different numbers of threads suffer unequally.
_BUSY = 0.1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one benchmark; prints a table, and writes JSON when asked."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except BloomeryError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    commands = parser.add_subparsers(required=True)
    compare = commands.add_parser("engines", help="accelerate against DeepSpeed, interleaved, on random 350M models")
    compare.add_argument("--rounds", type=int, default=5, help="calls per configuration (default 5)")
    compare.add_argument("--models", default="opt,bloom", help="which of opt,bloom (default both)")
    compare.add_argument("--only", default="", help="configurations whose name contains one of these, comma-separated")
    compare.add_argument("--batch", type=int, default=4, help="prompts per call (default 4)")
    compare.add_argument("--prompt", type=int, default=32, help="tokens per prompt (default 32)")
    compare.add_argument("--new", type=int, default=64, help="new tokens per prompt (default 64)")
    compare.add_argument("--layers", type=int, default=checkpoints.LAYERS, help="layers of the models (default 24)")
    compare.add_argument("--dtype", default="fp32", help="fp32, bf16 or int8 (default fp32)")
    compare.add_argument("--allreduce", default="auto", help="auto, gloo or shm (default auto)")
    compare.set_defaults(run=_engines)
    server = commands.add_parser("echo", help="the server's own latency and requests per second")
    server.add_argument("--seconds", type=float, default=3.0, help="per case and round (default 3)")
    server.add_argument("--rounds", type=int, default=3, help="the servers take turns (default 3)")
    server.set_defaults(run=_echo)
    fetch = commands.add_parser("fetch", help="bloomery fetch beside boto3, s5cmd and curl, from one S3 server")
    fetch.add_argument("--rounds", type=int, default=5, help="the clients take turns (default 5)")
    fetch.add_argument("--size", type=float, default=1.0, metavar="GIB", help="of the single object (default 1)")
    fetch.add_argument("--sharded", type=float, default=4.0, metavar="GIB", help="of the 32 shards (default 4)")
    fetch.add_argument("--directory", type=Path, help="where both sides keep their files (default /dev/shm)")
    fetch.add_argument("--tls", action="store_true", help="by https, as from S3 itself")
    fetch.set_defaults(run=_fetch)
    stream = commands.add_parser("stream", help="S3 straight to tensors, beside run:ai's streamer; two ranks together")
    stream.add_argument("--rounds", type=int, default=5, help="the clients take turns (default 5)")
    stream.add_argument("--size", type=float, default=1.0, metavar="GIB", help="in 4 files (default 1)")
    stream.add_argument("--sharded", type=float, default=4.0, metavar="GIB", help="in 32 files (default 4)")
    stream.add_argument("--directory", type=Path, help="where the server's files lie (default /dev/shm)")
    stream.set_defaults(run=_stream)
    start = commands.add_parser("startup", help="from start to ready with a checkpoint in S3 and two ranks, three ways")
    start.add_argument("--rounds", type=int, default=3, help="the ways take turns (default 3)")
    start.add_argument("--layers", type=int, default=36, help="of the random OPT model (default 36: 1 GB)")
    start.add_argument("--directory", type=Path, help="where files lie on both sides (default: TMPDIR)")
    start.set_defaults(run=_startup)
    kill = commands.add_parser("recovery", help="from kill -9 of a rank to the next right answer")
    kill.add_argument("--kills", type=int, default=5, help="per model (default 5)")
    kill.set_defaults(run=_recovery)
    emulator = commands.add_parser("emulator", help="the SageMaker emulator: start, cost of an invocation and a stream")
    emulator.add_argument("--seconds", type=float, default=3.0, help="per case and round (default 3)")
    emulator.add_argument("--rounds", type=int, default=5, help="direct and through it in turns (default 5)")
    emulator.set_defaults(run=_emulator)
    for command in (compare, server, fetch, stream, start, kill, emulator):
        command.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    return parser


def _engines(options: argparse.Namespace) -> int:
    models = options.models.split(",")
    unknown = [model for model in models if model not in checkpoints.FAMILIES]
    if unknown:
        raise ConfigurationError(
            f"--models {options.models}: {unknown[0]!r} is not one of {', '.join(checkpoints.FAMILIES)}"
        )
    if options.rounds < 1:
        raise ConfigurationError(f"--rounds {options.rounds}: at least one is needed")
    work = engines.Work(
        rounds=options.rounds,
        batch=options.batch,
        prompt=options.prompt,
        new=options.new,
        dtype=options.dtype,
        allreduce=options.allreduce,
        layers=options.layers,
        configurations=_selected(options.only),
    )
    results = engines.run(models, work)
    print(f"batch {work.batch} x {work.new} new tokens after {work.prompt}, {work.rounds} rounds, {_machine()}\n")
    print(report.table(results))
    if max(result.others for result in results) > _BUSY:
        print(f"\nOther processes took more than {_BUSY:.0%} of the cores: do not rely on these ratios.")
    _write(options.json, [result.as_json() for result in results])
    return 0


def _selected(only: str) -> list[Configuration]:
    parts = [part.strip() for part in only.split(",") if part.strip()]
    chosen = [each for each in CONFIGURATIONS if not parts or any(part in each.name for part in parts)]
    if not chosen:
        names = ", ".join(each.name for each in CONFIGURATIONS)
        raise ConfigurationError(f"--only {only}: no configuration has such a name; there are {names}")
    return chosen


def _echo(options: argparse.Namespace) -> int:
    results, start = echo.run(options.seconds, options.rounds)
    print(f"echo handler through the server, {_machine()}\n")
    print(echo.table(results))
    print(f"\n{echo.start_line(start)}")
    _write(options.json, [result.as_json() for result in results])
    return 0


def _fetch(options: argparse.Namespace) -> int:
    if options.rounds < 1:
        raise ConfigurationError(f"--rounds {options.rounds}: at least one is needed")
    sizes = [(int(options.size * 2**30), 1), (int(options.sharded * 2**30), 32)]
    results = fetching.run(options.rounds, [size for size in sizes if size[0]], options.directory, options.tls)
    how = "by https " if options.tls else ""
    print(f"fetch {how}from one S3 server on this machine, {options.rounds} rounds, {_machine()}\n")
    print(fetching_report.table(results))
    print("\n" + "\n".join(fetching_report.verdicts(results)))
    if max(run.others for result in results for run in result.runs) > _BUSY:
        print(f"\nOther processes took more than {_BUSY:.0%} of the cores in some run: do not rely on these ratios.")
    _write(options.json, [result.as_json() for result in results])
    return 0


def _stream(options: argparse.Namespace) -> int:
    if options.rounds < 1:
        raise ConfigurationError(f"--rounds {options.rounds}: at least one is needed")
    sizes = [(int(options.size * 2**30), 4), (int(options.sharded * 2**30), 32)]
    results = streaming.run(options.rounds, [size for size in sizes if size[0]], options.directory)
    print(f"from one S3 server on this machine to tensors, {options.rounds} rounds, {_machine()}\n")
    print(streaming.table(results))
    print("\n" + "\n".join(streaming.verdicts(results)))
    _write(options.json, [result.as_json() for result in results])
    return 0


def _startup(options: argparse.Namespace) -> int:
    if options.rounds < 1:
        raise ConfigurationError(f"--rounds {options.rounds}: at least one is needed")
    results = startup.run(options.rounds, options.layers, options.directory)
    size = results[0].size / 1e9
    print(f"start to ready, {size:.2f} GB in S3, {startup.RANKS} ranks, {options.rounds} rounds, {_machine()}\n")
    print(startup.table(results))
    _write(options.json, [result.as_json() for result in results])
    return 0


def _recovery(options: argparse.Namespace) -> int:
    results = recovery.run(options.kills)
    print(f"kill -9 of a rank, {_machine()}\n")
    print(recovery.table(results))
    _write(options.json, [result.as_json() for result in results])
    return 0


def _emulator(options: argparse.Namespace) -> int:
    results, starts = emulating.run(options.seconds, options.rounds)
    print(f"echo container, direct and through the emulator, {_machine()}\n")
    print(emulating.table(results))
    print(f"\n{emulating.start_line(starts)}")
    _write(options.json, [result.as_json() for result in results])
    return 0


def _write(path: Path | None, results: list[dict[str, Any]]) -> None:
    if path is None:
        return
    about = {"machine": _machine(), "cores": cores(), "python": platform.python_version(), "time": time.time()}
    path.write_text(json.dumps(about | {"results": results}, indent=1) + "\n")


def _machine() -> str:
    return f"{cores()} cores of {processor()}"


if __name__ == "__main__":
    sys.exit(main())
