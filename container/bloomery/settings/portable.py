"""The settings of a model directory, checked for a machine that is not this one: before they travel in an archive.

What depends on the machine (its devices, its interpreters, whether DeepSpeed is installed) is left to the server.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bloomery.errors import ConfigurationError
from bloomery.settings import contradictions, devices, engine, keys, migration, source, table
from bloomery.settings.engine import BUILT_IN
from bloomery.settings.layers import Layer
from bloomery.settings.model import ModelSettings
from bloomery.settings.of_model import ModelReader
from bloomery.settings.source import Home, Source

# Read with others, by functions of their own; or a path of the other machine.
_ELSEWHERE = ("engine", "option.entryPoint", "option.pythonExecutable", *table.WORKERS)


@dataclass
class Checked:
    """What the server will make of a model directory. Texts name the line where one is to blame, as in
    ``serving.properties line 2 of DIR: …``."""

    errors: list[str] = field(default_factory=list)  # what keeps the model from being served
    notices: list[str] = field(default_factory=list)  # what has no effect, is misspelt, or contradicts something
    remarks: list[str] = field(default_factory=list)  # what is right and may surprise
    entry_point: str | None = None  # a file of the directory, or a module; None when nothing says which
    handler: str = "handle"
    stated: Layer = field(default_factory=dict)  # serving.properties, as it is


def check(directory: Path, name: str) -> Checked:
    """Of the model directory that will be called ``name`` where it is served."""
    checked = Checked()
    home = Home.find()
    try:
        reader = ModelReader(Source(directory, name), home, {}, [], {}, {}, travels=True)
    except ConfigurationError as error:
        checked.errors.append(str(error))
        return checked
    checked.stated, found = reader.stated, reader.found
    checked.notices += reader.notices
    values = _values(found, checked.errors)
    checked.handler = values.get("handler", checked.handler)
    has_model = any(key in found for key in table.MODEL_SOURCES) or source.is_checkpoint(directory)
    try:
        choice = engine.choose(directory, name, found, has_model, home.model_dir)
    except ConfigurationError as error:
        checked.errors.append(str(error))
    else:
        checked.entry_point = choice.entry_point
        checked.notices += choice.notices
        settings = ModelSettings(
            name=name,
            model_dir=directory,
            engine=choice.engine,
            entry_point=choice.entry_point,
            rolling_batch=choice.rolling_batch,
            tensor_parallel_degree=values.pop("tensor_parallel_degree", None) or 1,
            **values,
        )
        checked.notices += contradictions.notices(settings, found)
        checked.remarks += contradictions.remarks(settings, found)
    _refusals(directory, checked)
    return checked


def _values(found: Layer, errors: list[str]) -> dict[str, Any]:
    """The settings that have a value of the right kind; the others are errors, each for itself."""
    values = {}
    for setting in table.MODEL:
        if setting.key in found and setting.key not in _ELSEWHERE:
            try:
                values[setting.field] = table.parse(setting, found[setting.key])
            except ConfigurationError as error:
                errors.append(str(error))
    for kind in devices.KINDS:
        try:
            devices.workers(found, kind)
        except ConfigurationError as error:
            if str(error) not in errors:
                errors.append(str(error))
    return values


def _refusals(directory: Path, checked: Checked) -> None:
    """Settings of other systems that have to be changed. An option that only a built-in handler refuses is a notice
    where the handler is the user's own, which may read it."""
    own = {setting.key for setting in table.MODEL}
    built_in = checked.entry_point in BUILT_IN
    for finding in migration.of_directory(directory) if checked.stated else ():
        said = f"{finding.origin}: "
        told = finding.name in _ELSEWHERE or any(said in text for text in checked.errors)
        if told or finding.verdict != "refused" or keys.oddity(finding.name):
            continue
        text = f"{said}{finding.name}={finding.value}: {finding.how}"
        (checked.errors if built_in or finding.name in own else checked.notices).append(text)
