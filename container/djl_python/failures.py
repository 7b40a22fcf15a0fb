"""What a client is told when a handler fails."""

from __future__ import annotations

import contextlib
import sys
import traceback
from typing import Any

from bloomery.errors import BloomeryError
from bloomery.processes.machine import table_bytes
from djl_python.outputs import Output

OUT_OF_MEMORY_CODE = 507
_OUT_OF_MEMORY_TYPES = ("MemoryError", "OutOfMemoryError")
# Texts of out-of-memory errors that have a general type: torch on a GPU, vLLM, torch on a CPU.
_OUT_OF_MEMORY_TEXTS = (
    "CUDA error: out of memory",
    "No available memory for the cache blocks",
    "DefaultCPUAllocator: can't allocate memory",
)
# What ends the process when a handler raises it, as under DJLServing. Everything else is the handler's failure, also
# what is no Exception: a panic in a Rust extension (tokenizers), a cancelled asyncio task.
EXITS = (SystemExit, KeyboardInterrupt)
_FRAMES = 3
_REASON_CHARACTERS = 200


def report_failure(error: BaseException) -> None:
    """Print the traceback; a handler may have closed the stream that it goes to.

    Of an error of ours its text alone: it says what is wrong and what to do, and frames would push that out of sight.
    """
    with contextlib.suppress(Exception):
        if isinstance(error, BloomeryError):
            print(describe(error, with_frames=True), file=sys.stderr, flush=True)
        else:
            traceback.print_exception(error)


def failure_output(error: BaseException, with_frames: bool = False) -> Output:
    """The answer for ``error``: 507 when memory ran out, else 424.

    ``with_frames`` is for the initialise call, whose error an operator reads: it adds the innermost frames.
    """
    text = describe(error, with_frames)
    if not is_out_of_memory(error):
        return Output().error(text)
    reason = next(iter(_text(error).splitlines()), "").strip()[:_REASON_CHARACTERS] or "out of memory"
    return Output().error(f"{text}\n{memory_report()}", OUT_OF_MEMORY_CODE, reason)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, by the name of the error's type or by its text."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return not names.isdisjoint(_OUT_OF_MEMORY_TYPES) or any(text in _text(error) for text in _OUT_OF_MEMORY_TEXTS)


def describe(error: BaseException, with_frames: bool = False) -> str:
    """The error's own text; with frames also its type, the innermost frames (not of ours), and what caused it."""
    if not with_frames:
        return _text(error) or type(error).__name__
    lines = traceback.format_exception_only(error)
    if isinstance(error, SyntaxError):  # its own form begins with the file; clients and /models see the first line only
        lines.insert(0, f"{type(error).__name__}: {_text(error)}\n")
    if not isinstance(error, BloomeryError):
        lines += traceback.format_list(traceback.extract_tb(error.__traceback__)[-_FRAMES:])
    if error.__cause__ is not None:
        lines += "caused by ", *traceback.format_exception_only(error.__cause__)
    return "".join(lines).rstrip()


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as defect:
        return f"{type(error).__name__}, whose text cannot be made ({type(defect).__name__})"


def memory_report() -> str:
    """What memory there is, and what helps."""
    figures = [f"this worker holds {table_bytes('/proc/self/status', 'VmRSS') >> 20} MiB"]
    figures.append(f"{table_bytes('/proc/meminfo', 'MemAvailable') >> 20} MiB of host memory are available")
    torch: Any = sys.modules.get("torch")  # nothing is on a device unless torch is loaded
    with contextlib.suppress(Exception):  # a device that has just failed may fail this too
        for device in range(torch.cuda.device_count() if torch is not None else 0):
            free, total = torch.cuda.mem_get_info(device)
            figures.append(f"device {device} has {free >> 20} of {total >> 20} MiB free")
    return (
        f"Memory: {'; '.join(figures)}. Shorter prompts, fewer prompts per request, a smaller max_new_tokens, "
        "a smaller data type or a higher tensor_parallel_degree need less."
    )
