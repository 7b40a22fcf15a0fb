"""``bloomery serve``: what it takes."""

from __future__ import annotations

import typer

from bloomery.cli.arguments import Config, Host, Models, Options, Port, Source, Store, Strict


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
