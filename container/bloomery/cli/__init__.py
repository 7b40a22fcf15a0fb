"""The command line. It parses, calls one function and prints; every import that costs time happens in a command.

Exit codes: 0 done, or stopped by a signal after the requests in flight were answered; 1 a required model could not be
loaded or kept alive, or ``check`` refuses a setting; 2 the configuration or the command line is wrong; 3 the address
cannot be bound, for instance because its port is in use; 130 a second signal ended the server at once.
"""

from __future__ import annotations

import gc
import sys
from typing import Annotated

import typer

from bloomery.errors import AddressError, BloomeryError, ConfigurationError

OK, MODEL_FAILED, CONFIGURATION, ADDRESS, INTERRUPTED = 0, 1, 2, 3, 130
REFUSED = 1  # by check

app = typer.Typer(
    name="bloomery",
    help="Serve large language models the way SageMaker, DJLServing and DeepSpeed-MII users expect.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
Source = Annotated[
    str | None,
    typer.Argument(
        metavar="[DIR|URI]",
        help="A model directory, a checkpoint directory, s3://… or a hub id; none: the demonstration model.",
    ),
]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", "-o", metavar="KEY=VALUE", help="A setting, such as option.dtype=bf16; repeatable."),
]


Host = Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")]
Port = Annotated[int | None, typer.Option(help="Port to listen on, 0 for any free one.  [default: 8080]")]
Models = Annotated[
    list[str] | None,
    typer.Option("--models", "-m", metavar="[NAME=]URL", help="Models to load, by name if you like; repeatable."),
]
Store = Annotated[
    str | None, typer.Option("--model-store", "-s", metavar="DIR", help="Directory whose models are loaded.")
]
Config = Annotated[
    str | None,
    typer.Option("--config-file", "-f", metavar="FILE", help="DJLServing's config.properties."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Settings that do nothing, or contradict others, are errors.")]


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    """Options of the program itself."""
    if version:
        import bloomery

        print(f"bloomery {bloomery.__version__}")
        raise typer.Exit


@app.command()
def serve(
    source: Source = None,
    host: Host = None,
    port: Port = None,
    option: Options = None,
    models: Models = None,
    model_store: Store = None,
    config_file: Config = None,
    strict: Strict = False,
) -> None:
    """Serve models over HTTP until SIGTERM or Ctrl-C."""
    from bloomery.cli import serving
    from bloomery.cli.reading import Wanted

    wanted = Wanted(source, option or [], models or [], model_store, config_file, strict, host, port)
    raise typer.Exit(serving.serve(wanted))


@app.command()
def explain(
    source: Source = None,
    option: Options = None,
    models: Models = None,
    model_store: Store = None,
    config_file: Config = None,
    strict: Strict = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print every setting, its value, its source and what it overrode; secrets as ***."""
    from bloomery.cli import explaining
    from bloomery.cli.reading import Wanted

    wanted = Wanted(source, option or [], models or [], model_store, config_file, strict)
    raise typer.Exit(explaining.explain(wanted, as_json))


@app.command()
def check(
    directory: Annotated[str | None, typer.Argument(metavar="[DIR]", help="A model directory.")] = None,
    env: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Variables: an env file, docker run -e lines, or JSON; - for standard input."
        ),
    ] = None,
    env_now: Annotated[bool, typer.Option("--env-now", help="The variables of the present environment.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    table: Annotated[
        bool, typer.Option("--table", help="Print the whole table as Markdown (docs/from-lmi.md).")
    ] = False,
) -> None:
    """Tell of each setting for LMI, DJLServing or TGI: same here, different, or refused; exit code 1 if any is."""
    if table:
        from bloomery.settings import migration

        sys.stdout.write(migration.page())
        raise typer.Exit
    from bloomery.cli import checking

    raise typer.Exit(checking.check(directory, env, env_now, as_json))


@app.command()
def fetch(
    uri: Annotated[
        str,
        typer.Argument(metavar="URI", help="s3://bucket/prefix, a hub's id, https://… or a directory; or one file."),
    ],
    directory: Annotated[str, typer.Argument(metavar="DIR", help="Where its files shall be.")],
    include: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Fetch what matches, such as '*.json'; repeatable.  [default: all but weights that are there twice]",
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub's model.")] = None,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Compare no checksums.")] = False,
    no_resume: Annotated[
        bool, typer.Option("--no-resume", help="Drop what an interrupted fetch has left, and leave nothing behind.")
    ] = False,
    connections: Annotated[
        int | None, typer.Option(min=1, max=256, help="Ranges that are read at once.  [default: 16 to 64, by cores]")
    ] = None,
) -> None:
    """Bring a checkpoint to a directory: whole and verified, or not at all; an interrupted fetch is gone on with."""
    from bloomery.cli import fetching

    raise typer.Exit(
        fetching.fetch(
            uri,
            directory,
            include or [],
            revision,
            verify=not no_verify,
            resume=not no_resume,
            connections=connections,
        )
    )


@app.command()
def shard(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A checkpoint: a directory, s3://…, or a hub id.")],
    target: Annotated[str, typer.Argument(metavar="DST", help="A new directory, or s3://bucket/prefix.")],
    tensor_parallel: Annotated[
        int, typer.Option("--tensor-parallel", "-t", metavar="N", help="Ranks; 1 gives an ordinary checkpoint.")
    ],
    dtype: Annotated[
        str | None, typer.Option(help="fp32, fp16, bf16, or int8 (linear layers only).  [default: as stored]")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub's model.")] = None,
) -> None:
    """Split a checkpoint over ranks ahead of time, convert it to safetensors, or write it in another precision."""
    from bloomery.cli import sharding

    raise typer.Exit(sharding.write(source, target, tensor_parallel, dtype, revision))


@app.command()
def upload(
    directory: Annotated[str, typer.Argument(metavar="DIR", help="A directory with a checkpoint, or any files.")],
    uri: Annotated[str, typer.Argument(metavar="URI", help="s3://bucket/prefix/.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent.")] = False,
    no_resume: Annotated[
        bool, typer.Option("--no-resume", help="Drop the parts of an interrupted upload instead of going on.")
    ] = False,
    connections: Annotated[int, typer.Option(min=1, max=64, help="Parts that are sent at once.")] = 8,
) -> None:
    """Bring a directory to S3 with checksums: what is there and equal is left alone, MANIFEST.json comes last."""
    from bloomery.cli import uploading

    raise typer.Exit(uploading.send(directory, uri, dry_run, not no_resume, connections))


sagemaker_local = typer.Typer(help="SageMaker on this machine: its API, and endpoints that really serve.")
app.add_typer(sagemaker_local, name="sagemaker-local")


@sagemaker_local.callback(invoke_without_command=True)
def emulate(
    context: typer.Context,
    host: Host = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 for any free one.  [default: 8099]")] = None,
    state: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="What survives a restart.  [default: below ~/.local/state]"),
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(metavar="REGEX=COMMAND", help="What runs for images that match; repeatable."),
    ] = None,
    log_bodies: Annotated[
        str | None, typer.Option(metavar="FILE", help="Keep requests and answers there, as JSON lines.")
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=NUMBER",
            help="Another limit than SageMaker's: payload (bytes), invocation, stream, asynchronous (seconds), …",
        ),
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND[,NAME=VALUE…]",
            help="What is to go wrong, repeatable. InsufficientInstanceCapacity (instance_type, endpoint), "
            "ResourceLimitExceeded (operation, instance_type), ThrottlingException (operation), SlowStart (seconds, "
            "instance_type, endpoint), ContainerDies (seconds or invocations, instance_type, endpoint), ModelError "
            "(status, endpoint); each with times=N (default: always) and fraction=0…1. instance_type, endpoint and "
            "operation are regular expressions. Also at run time: POST /_bloomery/faults.",
        ),
    ] = None,
    scaler_period: Annotated[
        float | None,
        typer.Option(
            min=0.1, max=3600, metavar="SECONDS", help="How often scaling policies are looked at.  [default: 10 or 60]"
        ),
    ] = None,
    tables: Annotated[
        str | None,
        typer.Option(metavar="FILE.json", help="Other quotas and prices, by instance type, than the emulator's own."),
    ] = None,
) -> None:
    """SageMaker on this machine, until SIGTERM or Ctrl-C."""
    if context.invoked_subcommand is not None:
        return
    from bloomery.cli import emulating

    wanted = emulating.Wanted(
        host, port, state, image or [], log_bodies, limit or [], fault or [], scaler_period, tables
    )
    raise typer.Exit(emulating.emulate(wanted))


@sagemaker_local.command("env")
def exports(
    context: typer.Context,
    host: Host = None,
    port: Annotated[int | None, typer.Option(help="Port of the emulator.  [default: 8099]")] = None,
    sdk: Annotated[bool, typer.Option("--sdk", help="Make the SageMaker Python SDK (v2, v3) find STS there.")] = False,
) -> None:
    """Print shell lines that point AWS clients at the emulator: eval "$(bloomery sagemaker-local env)"."""
    import os

    from bloomery.cli import emulating

    above = context.parent.params if context.parent else {}
    host, port = host or above.get("host"), port or above.get("port")
    sys.stdout.write(emulating.exports(host, port, os.environ, sdk=sdk))


def main() -> None:
    """The console script."""
    try:
        app()
    except BloomeryError as error:
        from bloomery.settings.secret import redact

        print(f"bloomery: {redact(str(error))}", file=sys.stderr)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        gc.freeze()  # all that is left ends with the process: to look for cycles in it takes a twentieth of a second


def exit_code(error: BloomeryError) -> int:
    """The exit code that stands for ``error``."""
    if isinstance(error, ConfigurationError):
        return CONFIGURATION
    return ADDRESS if isinstance(error, AddressError) else MODEL_FAILED
