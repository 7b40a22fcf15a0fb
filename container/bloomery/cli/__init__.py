"""The command line. It parses, calls one function and prints; every import that costs time happens in a command.

Exit codes: 0 done, or stopped by a signal after the requests in flight were answered; 1 a required model could not be
loaded or kept alive; 2 the configuration or the command line is wrong; 3 the address cannot be bound, for instance
because its port is in use; 130 a second signal ended the server at once.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from bloomery.errors import AddressError, BloomeryError, ConfigurationError

OK, MODEL_FAILED, CONFIGURATION, ADDRESS, INTERRUPTED = 0, 1, 2, 3, 130

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
    host: Annotated[str | None, typer.Option(help="Address to listen on.  [default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 for any free one.  [default: 8080]")] = None,
    option: Options = None,
) -> None:
    """Serve a model over HTTP until SIGTERM or Ctrl-C."""
    from bloomery.cli import serving

    raise typer.Exit(serving.serve(source, host, port, option or []))


@app.command()
def explain(source: Source = None, option: Options = None) -> None:
    """Print every setting, its value and where it comes from; secrets as ***."""
    from bloomery.cli import explaining
    from bloomery.settings import load

    settings = load(source, options=option or [])
    sys.stdout.write(explaining.table(settings.explained))
    for notice in settings.notices:
        print(f"warning: {notice}", file=sys.stderr)


def main() -> None:
    """The console script."""
    try:
        app()
    except BloomeryError as error:
        print(f"bloomery: {error}", file=sys.stderr)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def exit_code(error: BloomeryError) -> int:
    """The exit code that stands for ``error``."""
    if isinstance(error, ConfigurationError):
        return CONFIGURATION
    return ADDRESS if isinstance(error, AddressError) else MODEL_FAILED
