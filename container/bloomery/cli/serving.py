"""``bloomery serve``: settings, the port, then everything that takes time to import."""

from __future__ import annotations

import contextlib
import gc
import logging
import signal
import sys

from bloomery import cli
from bloomery.cli import access_log, logs
from bloomery.cli.reading import Wanted
from bloomery.http_api import listen
from bloomery.http_api.listen import Listener
from bloomery.settings import Settings
from bloomery.settings.secret import redact

_COLLECT_AFTER = 10_000  # objects made and not yet freed; Python's 700 costs a tenth of the time of a small request


def serve(wanted: Wanted) -> int:
    """Serve until told to stop; the exit code."""
    # Until the server's own handlers are in place: whoever stops us this early gets the same exit code.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(cli.OK))
    loaded = wanted.settings()
    with contextlib.ExitStack() as listening:
        inference = listen.bind(loaded.server.inference_address)
        listening.callback(inference.close)
        management = None
        if loaded.server.management_address is not None:
            management = listen.bind(loaded.server.management_address)
            listening.callback(management.close)
        return _serve(loaded, inference, management)


def _serve(loaded: Settings, inference: Listener, management: Listener | None) -> int:
    logs.configure()
    access_log.configure()
    names = ", ".join(model.name for model in loaded.models)
    _say(f"listening on {inference.url}; " + (f"loading {names}" if names else "no model yet"))
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

    # What has been imported stays, so the collector need not look at it again; and requests leave no cycles behind.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, 10, 10)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcome = runner.run(run())
    loaded.unpacked.remove()
    return {
        Outcome.STOPPED: cli.OK,
        Outcome.FAILED: cli.MODEL_FAILED,
        Outcome.INTERRUPTED: cli.INTERRUPTED,
    }[outcome]


def _say(line: str) -> None:
    print(redact(line), flush=True)


def _report(text: str) -> None:
    """The one block that a user must not miss, on a line of its own among the log's."""
    print(f"\n{redact(text.strip())}\n", file=sys.stderr, flush=True)
