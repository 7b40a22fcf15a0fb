"""What a request to add a model asks for, and the settings that follow from it."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from aiohttp import web

from bloomery import settings
from bloomery.errors import (
    BadRequestError,
    ConfigurationError,
    ForbiddenError,
    InsufficientStorageError,
    ModelNotFoundError,
)
from bloomery.processes import machine
from bloomery.serving import model_urls
from bloomery.serving.registrar import Addition
from bloomery.settings import ServerSettings
from bloomery.settings.table import WITHOUT_EFFECT

logger = logging.getLogger(__name__)
# Parameters with whole numbers, and the least each may be; and the setting of the model that each stands for.
_NUMBERS = {"job_queue_size": 1, "batch_size": 1, "max_batch_delay": 0, "max_idle_time": 0, "min_worker": 1}
_NUMBERS["max_worker"] = 1
_KEYS = {"min_worker": "minWorkers", "max_worker": "maxWorkers", "device": "load_on_devices"}
_OPTIONS = ("engine", "device", *_NUMBERS)
_NAME = re.compile(r"[^/?#%\\\s\x00-\x1f\x7f]{1,256}")
_OVERHEAD = 1.2  # memory of a loaded model for each byte of its files, DJLServing's estimate


@dataclass(frozen=True)
class Registration:
    """A model that somebody wants to be added. ``options`` are settings of it, by the names of the parameters."""

    url: str
    name: str | None
    version: str | None
    synchronous: bool
    options: dict[str, str]

    @property
    def shown(self) -> str:
        """The URL without its query, which may hold a signature."""
        return self.url.partition("?")[0]


async def parameters(http: web.Request) -> dict[str, str]:
    """The query's parameters and those of a JSON body, of which the query's are the stronger."""
    body = await http.read()
    stated: Mapping[str, object] = {}
    if body.strip():
        try:
            stated = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise BadRequestError(f"the body is not JSON: {error}") from error
        if not isinstance(stated, dict):
            raise BadRequestError('the body must be a JSON object, such as {"url": "/models/mine"}')
    texts = {key: _text(key, value) for key, value in stated.items() if value is not None}
    return {**texts, **http.query}


def read(stated: Mapping[str, str]) -> Registration:
    """The registration that these parameters ask for; BadRequestError names the one that is wrong."""
    known = {"url", "model_name", "model_version", "synchronous", *_OPTIONS}
    if strangers := sorted(stated.keys() - known):
        logger.warning("parameters of a new model without effect here: %s", ", ".join(map(repr, strangers)))
    url = stated.get("url", "").strip()
    if not url:
        raise BadRequestError("Parameter url is required.")
    name, version = stated.get("model_name") or None, stated.get("model_version") or None
    for key, value in (("model_name", name), ("model_version", version)):
        if value is not None and not _NAME.fullmatch(value):
            raise BadRequestError(f"Parameter {key} is {value!r}; it must be fit for a part of a URL's path.")
    for key in _NUMBERS:
        if stated.get(key):
            number(stated, key)
    options = {key: stated[key] for key in _OPTIONS if stated.get(key)}
    return Registration(url, name, version, synchronous(stated), options)


def number(stated: Mapping[str, str], key: str) -> int:
    """A parameter with a whole number."""
    text, least = stated[key].strip(), _NUMBERS[key]
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) >= least):
        raise BadRequestError(f"Parameter {key} is {text!r}; it must be a whole number of at least {least}.")
    return int(text)


def synchronous(stated: Mapping[str, str]) -> bool:
    """Whether the answer waits until what is asked for has been done; true unless told otherwise."""
    text = stated.get("synchronous", "true").strip().lower()
    if text not in ("true", "false"):
        raise BadRequestError(f"Parameter synchronous is {text!r}; it must be true or false.")
    return text == "true"


def is_local(wanted: Registration) -> bool:
    """Whether it is a path of this machine."""
    try:
        return path_of(wanted.url).exists()
    except (OSError, ValueError, RuntimeError):  # too long for a path, a NUL, or somebody's ~home that is not there
        return False


async def resolve(wanted: Registration, server: ServerSettings) -> Addition:
    """The model to be added. What is not on this machine is fetched, if that is allowed."""
    if is_local(wanted):
        return await _found(wanted, path_of(wanted.url).absolute(), server)
    if not model_urls.is_remote(wanted.url):
        raise ModelNotFoundError(f"Invalid model url: {wanted.shown}")
    if not server.allow_model_urls:
        raise ForbiddenError(
            f"{wanted.shown} is not on this machine; the server loads from elsewhere only with "
            "allow_model_urls=true (SERVING_ALLOW_MODEL_URLS)"
        )
    async with model_urls.fetched(wanted.url) as source:
        return await _found(wanted, source, server)


async def _found(wanted: Registration, source: Path, server: ServerSettings) -> Addition:
    if server.multi_model:
        await asyncio.to_thread(_refuse_without_memory, source)
    return await asyncio.to_thread(_addition, wanted, str(source), server.config_file)


def _addition(wanted: Registration, source: str, config_file: str | None) -> Addition:
    options = []
    for key, value in wanted.options.items():
        name = _KEYS.get(key, key)
        if name in WITHOUT_EFFECT:
            logger.warning("parameter %s=%s of model url %s has no effect in this server", key, value, wanted.shown)
        else:
            options.append(f"{name}={value}")
    try:
        found = settings.load(source, options=options, config_file=config_file)
    except ConfigurationError as error:
        raise BadRequestError(f"{wanted.shown}: {error}") from error
    for notice in found.notices:
        logger.warning("%s", notice)
    if len(found.models) != 1:
        found.unpacked.remove()
        names = ", ".join(model.name for model in found.models)
        raise BadRequestError(f"{wanted.shown} holds {len(found.models)} models ({names}); add them one by one")
    model = found.models[0]
    name, version = wanted.name or model.name, wanted.version or model.version
    # Of its own free will the server never ends because of a model that somebody added.
    chosen = replace(model, name=name, version=version, required=False)
    return Addition(chosen, wanted.shown, found.unpacked.remove)


def _refuse_without_memory(source: Path) -> None:
    files = [path for path in source.rglob("*") if path.is_file()] if source.is_dir() else [source]
    needed = int(_OVERHEAD * sum(path.stat().st_size for path in files))
    available = machine.memory_available()
    if needed > available:
        raise InsufficientStorageError(
            f"{source} needs about {needed:,} bytes of memory (1.2 times its files), and {available:,} are available; "
            "remove another model first"
        )


def path_of(url: str) -> Path:
    """The path that a URL without a scheme, or with file://, names."""
    if url.startswith("file:"):
        return Path(unquote(urlsplit(url).path))
    return Path(url).expanduser()


def _text(key: str, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, int)):
        return str(value)
    raise BadRequestError(f"Parameter {key} is {value!r}; it must be a text or a number.")
