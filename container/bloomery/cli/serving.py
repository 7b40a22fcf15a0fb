"""``bloomery serve``: settings, the port, then everything that takes time to import."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys

from bloomery import cli, settings
from bloomery.http_api import listen
from bloomery.http_api.listen import Listener
from bloomery.settings import Settings


def serve(source: str | None, host: str | None, port: int | None, options: list[str]) -> int:
    """Serve until told to stop; the exit code."""
    # Until the server's own handlers are in place: whoever stops us this early gets the same exit code.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(cli.OK))
    loaded = settings.load(source, options=options, host=host, port=port)
    with contextlib.ExitStack() as listening:
        inference = listen.bind(loaded.server.inference_address)
        listening.callback(inference.close)
        management = None
        if loaded.server.management_address is not None:
            management = listen.bind(loaded.server.management_address)
            listening.callback(management.close)
        return _serve(loaded, inference, management)


def _serve(loaded: Settings, inference: Listener, management: Listener | None) -> int:
    _configure_logging()
    names = ", ".join(model.name for model in loaded.models) or "no model yet"
    _say(f"listening on {inference.url}; loading {names}")
    if management is not None:
        _say(f"management on {management.url}")
    for notice in loaded.notices:
        logging.getLogger("bloomery.settings").warning("%s", notice)

    import asyncio

    import uvloop

    from bloomery.http_api.server import Outcome, Server
    from bloomery.serving.model import Model
    from bloomery.settings import ModelSettings
    from bloomery.workers.allocation import Allocator

    async def run() -> Outcome:
        allocator = Allocator()

        def make(model: ModelSettings) -> Model:
            return Model(model, allocator)

        return await Server(loaded, make, inference, management, _say, _report).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcome = runner.run(run())
    return {
        Outcome.STOPPED: cli.OK,
        Outcome.FAILED: cli.MODEL_FAILED,
        Outcome.INTERRUPTED: cli.INTERRUPTED,
    }[outcome]


def _configure_logging() -> None:
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )


def _say(line: str) -> None:
    print(line, flush=True)


def _report(text: str) -> None:
    """The one block that a user must not miss, on a line of its own among the log's."""
    print(f"\n{text.strip()}\n", file=sys.stderr, flush=True)
