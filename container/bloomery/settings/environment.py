"""Environment variables as the settings they stand for."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from bloomery.settings.properties import Found
from bloomery.settings.table import MODEL, OPTION_VARIABLES, OPTIONS, SERVER, Setting

_BY_LOWER = {key.lower(): key for key in OPTIONS}


def read(environ: Mapping[str, str]) -> dict[str, Found]:
    """Keys of serving.properties, with what the environment says for them. Empty variables count as absent."""
    found: dict[str, Found] = {}
    for name, value in environ.items():
        if name.startswith("OPTION_") and len(name) > len("OPTION_") and value.strip():
            found[_key(name)] = Found(value, f"environment {name}")
    for name, key in OPTION_VARIABLES.items():
        if environ.get(name, "").strip():
            found.setdefault(key, Found(environ[name], f"environment {name}"))
    _add(found, environ, MODEL)
    return found


def read_server(environ: Mapping[str, str]) -> dict[str, Found]:
    """The same for the server's own settings."""
    found: dict[str, Found] = {}
    _add(found, environ, SERVER)
    megabytes = environ.get("SAGEMAKER_MAX_PAYLOAD_IN_MB", "").strip()
    if megabytes.isdecimal():
        size = Found(str(int(megabytes) * 2**20), "environment SAGEMAKER_MAX_PAYLOAD_IN_MB")
        found.setdefault("max_request_size", size)
    return found


def strangers(environ: Mapping[str, str]) -> list[str]:
    """SERVING_ variables that stand for no setting here, each with the nearest one that does."""
    known = [name for setting in (*MODEL, *SERVER) for name in setting.variables if name.startswith("SERVING_")]
    notices = []
    for name in sorted(environ.keys() - known):
        if name.startswith("SERVING_"):
            close = difflib.get_close_matches(name, known, 1, 0.85)
            advice = f"; did you mean {close[0]}?" if close else ""
            notices.append(f"environment {name} has no effect in this server{advice}")
    return notices


def _add(found: dict[str, Found], environ: Mapping[str, str], settings: Iterable[Setting]) -> None:
    for setting in settings:
        for name in setting.variables:
            value = environ.get(name, "").strip()
            if value and not (name == "SM_NUM_GPUS" and value == "0"):  # SageMaker says 0 on machines without GPUs
                found.setdefault(setting.key, Found(value, f"environment {name}"))


def _key(name: str) -> str:
    """OPTION_ENTRYPOINT means option.entryPoint, OPTION_ENGINE the bare key engine."""
    key = "option." + name.removeprefix("OPTION_").lower()
    return "engine" if key == "option.engine" else _BY_LOWER.get(key, key)
