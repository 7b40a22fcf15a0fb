"""Variables as the settings they stand for: of the environment, and of ``config.properties``.

A key of config.properties is the variable ``SERVING_<KEY>`` in a weaker place (DJLServing's own rule), so one reader
serves both.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path

from bloomery.errors import ConfigurationError
from bloomery.settings import properties, server_table
from bloomery.settings.layers import Found, Layer, slip
from bloomery.settings.table import MODEL, OPTION_VARIABLES, OPTIONS, Setting

PREFIX = "SERVING_"
_BY_LOWER = {key.lower(): key for key in OPTIONS}


def variables(environ: Mapping[str, str]) -> Layer:
    """The environment by variable. Empty variables count as absent, and so does SageMaker's 0 for "no GPUs"."""
    return {
        name: Found(value, f"environment {name}")
        for name, value in environ.items()
        if value.strip() and not (name == "SM_NUM_GPUS" and value.strip() == "0")
    }


def config(stated: str | None, environ: Mapping[str, str]) -> Layer:
    """config.properties by variable: the file ``stated``, or the one below MODEL_SERVER_HOME if there is one."""
    home = environ.get("MODEL_SERVER_HOME", "").strip()
    if stated is not None:
        path = Path(stated).expanduser()
        if not path.is_file():
            raise ConfigurationError(f"command line --config-file {stated}: there is no such file")
    elif home and (Path(home) / "conf" / "config.properties").is_file():
        path = Path(home) / "conf" / "config.properties"
    else:
        return {}
    entries = properties.read(path.absolute())
    for key, found in entries.items():
        if key.startswith("option."):
            raise ConfigurationError(
                f"{found.origin}: {key} is a setting of a model; write it into the model's serving.properties, or set "
                f"the variable OPTION_{key.removeprefix('option.').upper()}"
            )
    return {PREFIX + key.upper(): found for key, found in entries.items() if found.text.strip()}


def read(stated: Layer) -> Layer:
    """Keys of serving.properties, with what the variables say for them."""
    found: Layer = {}
    for name, each in stated.items():
        if name.startswith("OPTION_") and len(name) > len("OPTION_"):
            slip(each, _key(name), found)
    for name, key in OPTION_VARIABLES.items():
        if name in stated:
            slip(stated[name], key, found)
    _add(found, stated, MODEL)
    return found


def read_server(stated: Layer) -> Layer:
    """The same for the server's own settings."""
    found: Layer = {}
    _add(found, stated, server_table.SERVER)
    for key in server_table.KEYSTORES:
        if (name := PREFIX + key.upper()) in stated:
            slip(stated[name], key, found)
    megabytes = stated.get("SAGEMAKER_MAX_PAYLOAD_IN_MB")
    if megabytes and megabytes.text.strip().isdecimal():
        slip(Found(str(int(megabytes.text) * 2**20), megabytes.origin), "max_request_size", found)
    return found


def key_of(name: str) -> str | None:
    """The key that the variable ``name`` stands for; None when it stands for none."""
    if name.startswith("OPTION_") and len(name) > len("OPTION_"):
        return _key(name)
    rows = (*MODEL, *server_table.SERVER)
    return OPTION_VARIABLES.get(name) or next((row.key for row in rows if name in row.variables), None)


def strangers(stated: Layer) -> list[str]:
    """What is said of each SERVING_ variable that changes nothing here: why, or the nearest one that would."""
    rows = (*MODEL, *server_table.SERVER)
    known = {name for setting in rows for name in setting.variables if name.startswith(PREFIX)}
    known |= {PREFIX + key.upper() for key in server_table.KEYSTORES}
    return [_stranger(name, stated[name], known) for name in sorted(stated.keys() - known) if name.startswith(PREFIX)]


def _stranger(name: str, found: Found, known: Iterable[str]) -> str:
    key = name.removeprefix(PREFIX).lower()
    of_environment = found.origin.endswith(name)
    where = found.origin if of_environment else f"{found.origin}: {key}"
    if reason := server_table.without_effect(key):
        return f"{where} has no effect in this server: {reason}"
    close = next(iter(difflib.get_close_matches(name, known, 1, 0.85)), "")
    if close and not of_environment:
        close = close.removeprefix(PREFIX).lower()
    return f"{where} has no effect in this server" + (f"; did you mean {close}?" if close else "")


def _add(found: Layer, stated: Layer, settings: Iterable[Setting]) -> None:
    for setting in settings:
        for name in setting.variables:
            if name in stated:
                slip(Found(stated[name].text.strip(), stated[name].origin, stated[name].overrode), setting.key, found)


def _key(name: str) -> str:
    """OPTION_ENTRYPOINT means option.entryPoint, OPTION_ENGINE the bare key engine."""
    key = "option." + name.removeprefix("OPTION_").lower()
    return "engine" if key == "option.engine" else _BY_LOWER.get(key, key)
