"""What a worker process runs: ``python djl_python_engine.py --sock-type unix --sock-name S --model-dir D ...``.

The command line is DJLServing's, so that it can start this worker as well as bloomery's own server can.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import logging
import os
import signal
import sys
import traceback
from typing import Any, NoReturn

from bloomery.errors import BloomeryError, ProtocolError
from bloomery.processes import control
from bloomery.protocol import private
from djl_python.async_worker import AsyncWorker
from djl_python.connection import Address, accept, listening
from djl_python.service_loader import BUILT_IN, ModelService
from djl_python.worker import Worker

logger = logging.getLogger("djl_python_engine")

# What DJLServing calls its levels, beside Python's own names.
_LEVELS = {"trace": "DEBUG", "warn": "WARNING", "off": "CRITICAL"}


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options of every DJLServing version, and what is none of them."""
    parser = argparse.ArgumentParser(description="Serve one handler over DJLServing's worker socket.")
    parser.add_argument("--sock-type", choices=["unix", "tcp"], required=True)
    parser.add_argument("--sock-name", default="", help="path of the unix socket; rank r of an MPI job adds .r")
    parser.add_argument("--port", type=int, default=0, help="TCP port, 0 for any; rank r of an MPI job adds r")
    parser.add_argument("--model-dir", default=".", help="directory of the model")
    parser.add_argument("--entry-point", default="", help="model.py, an absolute path, or a module's name")
    parser.add_argument("--recommended-entry-point", default="", help="used when there is no --entry-point")
    parser.add_argument("--device-id", default="-1")
    parser.add_argument("--cluster-size", type=int)
    parser.add_argument("--tensor-parallel-degree", type=int)
    parser.add_argument("--pipeline-parallel-degree", type=int)
    parser.add_argument("--log-level", default="info")
    parser.add_argument("--async-mode", action=argparse.BooleanOptionalAction, default=False)
    options, unknown = parser.parse_known_args(arguments)
    if options.sock_type == "unix" and not options.sock_name:
        parser.error("--sock-type unix needs --sock-name")
    return options, unknown


def adopt_mpi_rank() -> None:
    """Handlers and torch read RANK and its like; mpirun sets its own names."""
    for name in ("RANK", "LOCAL_RANK"):
        if f"OMPI_COMM_WORLD_{name}" in os.environ:
            os.environ.setdefault(name, os.environ[f"OMPI_COMM_WORLD_{name}"])
    for name, mpi_name in (("WORLD_SIZE", "SIZE"), ("LOCAL_WORLD_SIZE", "LOCAL_SIZE")):
        if f"OMPI_COMM_WORLD_{mpi_name}" in os.environ:
            os.environ.setdefault(name, os.environ[f"OMPI_COMM_WORLD_{mpi_name}"])


def address(options: argparse.Namespace) -> Address:
    """Where this rank listens."""
    mpi_rank = os.environ.get("OMPI_COMM_WORLD_RANK")
    ranked = mpi_rank is not None and options.tensor_parallel_degree is not None
    if options.sock_type == "unix":
        return Address(path=f"{options.sock_name}.{mpi_rank}" if ranked else options.sock_name)
    # Several nodes reach each other's ranks (DJLServing 0.29 and later); one node's worker is nobody else's business.
    host = "0.0.0.0" if (options.cluster_size or 1) > 1 else "127.0.0.1"
    return Address(host=host, port=options.port + int(mpi_rank or 0) if ranked and options.port else options.port)


def handler_properties(options: argparse.Namespace) -> dict[str, Any]:
    """What a handler finds in every request beside the frame's own properties; the degrees are int by tradition."""
    properties: dict[str, Any] = {"device_id": options.device_id, "model_dir": os.path.abspath(options.model_dir)}
    for name in ("tensor_parallel_degree", "pipeline_parallel_degree", "cluster_size"):
        if getattr(options, name) is not None:
            properties[name] = getattr(options, name)
    return properties


def serve(options: argparse.Namespace) -> None:
    """Announce the socket, take the connection, answer until it closes."""
    entry_point = options.entry_point or options.recommended_entry_point or "model.py"
    built_in = "djl_python.deepspeed" if options.tensor_parallel_degree else BUILT_IN
    service = ModelService(options.model_dir, entry_point, options.recommended_entry_point, built_in)
    properties = handler_properties(options)
    with listening(address(options)) as listener:
        name = listener.getsockname()
        where = name if isinstance(name, str) else f"{name[0]}:{name[1]}"
        # Printed and not logged: the parent waits for this line, whatever --log-level says.
        print(f"pid {os.getpid()} listens on {where}. Python engine started.", flush=True)
        with accept(listener) as sock:
            listener.close()
            worker = AsyncWorker(sock, service, properties) if options.async_mode else Worker(sock, service, properties)
            worker.run()


def main(arguments: list[str]) -> int:
    """Run the worker; the exit code is 0 when the peer closed the connection."""
    options, unknown = parse(arguments)
    # The parent reads this stream line by line and waits for one of them.
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    logging.basicConfig(stream=sys.stdout, level=_level(options.log_level), format="%(levelname)s %(name)s %(message)s")
    if unknown:
        logger.warning("unknown arguments, ignored: %s", " ".join(unknown))
    signal.signal(signal.SIGTERM, _terminate)
    adopt_mpi_rank()
    if private.CONTROL_SOCKET in os.environ:
        control.serve(os.environ[private.CONTROL_SOCKET])
    try:
        serve(options)
    except ProtocolError as error:
        print(f"worker: the request stream is broken, nothing after it can be read: {error}", file=sys.stderr)
        return 1
    except (BloomeryError, OSError) as error:
        print(f"worker: {error}", file=sys.stderr)
        return 1
    return 0


def _level(name: str) -> str:
    level = _LEVELS.get(name.lower(), name.upper())
    return level if level in logging.getLevelNamesMapping() else "INFO"


def _terminate(_signal: int, _frame: object) -> NoReturn:
    raise SystemExit(0)


def _leave(code: object) -> NoReturn:
    """End without tearing the interpreter down: in torch 2.13 one process in eight that still refers to a gloo group
    aborts there ("terminate called without an active exception"), and a clean end would look like a crash."""
    if isinstance(code, str):
        print(code, file=sys.stderr)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


if __name__ == "__main__":
    try:
        _leave(main(sys.argv[1:]))
    except SystemExit as ending:
        _leave(ending.code)
    except KeyboardInterrupt:
        _leave(130)
    except BaseException:  # a defect: this process ends by _leave all the same
        traceback.print_exc()
        _leave(1)
