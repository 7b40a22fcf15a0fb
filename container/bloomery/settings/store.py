"""Which models a server starts with: the argument, ``load_models``, or all of the model store."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bloomery.errors import ConfigurationError
from bloomery.settings import source, table
from bloomery.settings.archive import Unpacked
from bloomery.settings.layers import Found, Layer
from bloomery.settings.source import Home, Source

# [name:version:engine:devices]=url, or the same without brackets, or the url alone.
_ENTRY = re.compile(r"(?:\[(?P<bracketed>[^\]]*)\]=|(?P<plain>[^=/\[\]]*)=)?(?P<url>[^\[].*)")
_FORM = "write [name:version:engine:devices]=url, where all but the url may be left out"


@dataclass(frozen=True)
class Entry:
    """One of ``load_models``; an empty part was left out."""

    url: str
    name: str = ""
    version: str = ""
    engine: str = ""
    devices: str = ""


def parse_load_models(text: str) -> list[Entry]:
    """The entries with commas between them. Raises ValueError with the form that was expected."""
    entries = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        match = _ENTRY.fullmatch(part)
        fields = (match["bracketed"] or match["plain"] or "").split(":") if match else []
        if match is None or len(fields) > 4:
            raise ValueError(_FORM)
        name, version, engine, devices = [field.strip() for field in fields] + [""] * (4 - len(fields))
        if name and not re.fullmatch(r"[\w.-]+", name):
            raise ValueError(f"{_FORM}; a name may have letters, digits, '.', '_' and '-'")
        entries.append(Entry(match["url"].strip(), name, version, engine, devices))
    if not entries:
        raise ValueError(f"ALL, NONE, or models with commas between them: {_FORM}")
    return entries


def find(
    argument: str | None, found: Layer, multi_model: bool, names_checkpoint: bool, home: Home, unpacked: Unpacked
) -> list[Source]:
    """The models to start with. ``found`` is what is said of the server, ``names_checkpoint`` whether a source other
    than a model directory names a checkpoint."""
    stated, store = found.get("load_models"), found.get("model_store")
    if argument is not None:
        return source.find(argument, home, unpacked)
    if stated is not None and stated.text.strip().upper() == "NONE":
        return []
    if stated is not None and stated.text.strip().upper() != "ALL":
        return _listed(stated, store, names_checkpoint, home, unpacked)
    if stated is None and multi_model:
        return []  # SageMaker adds them, one by one
    if store is None:
        if stated is not None:
            raise ConfigurationError(
                f"{stated.origin}: load_models=ALL needs model_store, the directory to load all of"
            )
        return source.find(None, home, unpacked)
    path = Path(store.text).expanduser()
    if names_checkpoint and not source.holds_models(path):
        return source.find(None, home, unpacked)  # an image whose store is empty, started with HF_MODEL_ID
    if not path.is_dir():
        raise ConfigurationError(f"{store.origin}: model_store={store.text}: there is no such directory")
    return source.find(str(path), home, unpacked)


def _listed(stated: Found, store: Found | None, names_checkpoint: bool, home: Home, unpacked: Unpacked) -> list[Source]:
    try:
        entries = parse_load_models(stated.text)
    except ValueError as error:
        raise ConfigurationError(f"{stated.origin}: load_models={stated.text}: {error}") from None
    base = Path(store.text).expanduser() if store else None
    models: list[Source] = []
    for entry in entries:
        place = _place(entry.url, stated, base)
        if names_checkpoint and Path(place).is_absolute() and not source.holds_models(Path(place)):
            # SERVING_LOAD_MODELS=test::MPI=/opt/ml/model with nothing there and HF_MODEL_ID: how LMI's images say it.
            found = [Source(home.model_dir, entry.name or None)]
        else:
            found = source.find(place, home, unpacked)
        models += _models(entry, found, stated)
    return models


def _models(entry: Entry, models: list[Source], stated: Found) -> Iterable[Source]:
    if len(models) > 1 and (entry.name or entry.version):
        inside = ", ".join(model.name or "?" for model in models)
        raise ConfigurationError(
            f"{stated.origin}: load_models={stated.text}: {entry.url} holds several models ({inside}), and one name "
            "cannot be for all; list them one by one"
        )
    given = {"engine": entry.engine, "load_on_devices": entry.devices}
    for model in models:
        yield replace(
            model,
            name=entry.name or model.name,
            version=entry.version or None,
            given=model.given | {key: Found(text, stated.origin) for key, text in given.items() if text},
            is_default=False,
        )


def _place(url: str, stated: Found, store: Path | None) -> str:
    """Where an entry's model is: a path, absolute or below the store, or the URI of a checkpoint."""
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if scheme == "file":
        return unquote(urlsplit(url).path)
    if scheme in ("http", "https", "djl", "jar"):
        raise ConfigurationError(
            f"{stated.origin}: load_models={stated.text}: models are not downloaded over {scheme}; put the archive on "
            "this machine, or name a checkpoint with s3://bucket/prefix/"
        )
    below = store / url if store else None
    return str(below) if below is not None and below.exists() else url


def names_checkpoint(layers: Iterable[Layer]) -> bool:
    """Whether one of ``layers`` says which checkpoint to serve."""
    return any(key in layer for layer in layers for key in table.MODEL_SOURCES)
