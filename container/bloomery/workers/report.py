"""The block that a user reads when a model cannot be loaded, or not be kept alive."""

from __future__ import annotations

import re

from bloomery.errors import BloomeryError
from bloomery.settings.model import ModelSettings
from bloomery.workers.supervision import LostRankError, reason_of

_WIDTH = 78
_MEMORY = "use a smaller model or data type, more memory, or a higher option.tensor_parallel_degree"
OUT_OF_MEMORY = r"(?i)out of memory|MemoryError|can't allocate memory"
_HINTS = {
    r"requirements\.txt": (
        "correct the line, or put the packages into the directory requirements/ beside it; "
        "option.requirements_failure=continue goes on without them"
    ),
    r"^crash loop|failures in a row": (
        "see what the workers printed before each loss: a request that ends its worker will do so again; "
        "correct the handler, or refuse such requests before it"
    ),
    r"the kernel's out-of-memory killer: ": f"{_MEMORY} (docker run --memory; on SageMaker a larger instance)",
    r"SIGKILL": f"most likely the kernel's out-of-memory killer (see dmesg): {_MEMORY}",
    r"failed to map segment from shared object": (
        "its directory is mounted noexec, as docker's --tmpfs is: docker run --tmpfs /tmp:exec, or for the packages of "
        "a requirements.txt set DJL_VENV_DIR to a directory elsewhere"
    ),
    r"No module named '(torch|transformers|deepspeed|accelerate|safetensors|numpy|awscrt|boto3|huggingface_hub)'": (
        "the engines are not installed here: pip install 'bloomery[engines]'"
    ),
    r"No module named 'djl_python\.": (
        "bloomery has no such part of DJLServing's library; docs/compatibility.md says what there is"
    ),
    r"ModuleNotFoundError|No module named": (
        "name the missing package in a requirements.txt in the model directory, or install it into the workers' Python "
        "(option.pythonExecutable, else the server's own)"
    ),
    OUT_OF_MEMORY: f"the model does not fit: {_MEMORY}",
    r"model_loading_timeout": "if it was still making progress, raise option.model_loading_timeout (in seconds)",
    r"^bloomery\.\S+Error: ": "correct what the message names, and start again",
}
_OTHERWISE = "correct the handler or the setting that the message names, and start again"


def load_report(settings: ModelSettings, group: int, error: BloomeryError, *, was_loaded: bool = False) -> str:
    """Which model, with what, which rank, what went wrong, what to do, and what the rank printed last.

    ``was_loaded``: it has served, and crashed too often since.
    """
    reason = reason_of(error)
    rank = error.rank if isinstance(error, LostRankError) else None
    title = f" model {settings.name!r} could not be {'kept alive' if was_loaded else 'loaded'} "
    rows = {
        "model": f"{settings.name} in {settings.model_dir}",
        "engine": f"{settings.engine}, tensor_parallel_degree={settings.tensor_parallel_degree}, "
        f"entry point {settings.entry_point}, handler {settings.handler}",
        "options": ", ".join(f"{key}={value}" for key, value in sorted(settings.properties.items())) or "none",
        "where": f"group {group}" + ("" if rank is None else f", rank {rank} of {settings.ranks}"),
        "what": reason,
        "to do": _hint(reason),
    }
    lines = [title.center(_WIDTH, "=")]
    for name, text in rows.items():
        first, *more = text.splitlines() or [""]
        lines += [f"{name:>8}: {first}", *(f"{'':10}{line}" for line in more)]
    if isinstance(error, LostRankError) and error.lines:
        lines += [f" rank {rank} printed last ".center(_WIDTH, "-"), *error.lines]
    return "\n".join([*lines, "=" * _WIDTH])


def _hint(reason: str) -> str:
    return next((hint for pattern, hint in _HINTS.items() if re.search(pattern, reason)), _OTHERWISE)
