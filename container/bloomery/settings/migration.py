"""Settings of other systems, one by one: the same here, different, or to be changed. ``bloomery check``.

The rows are those of migration_lmi and migration_tgi; whatever this server reads besides means the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bloomery.errors import ConfigurationError
from bloomery.settings import environment, image_variables, keys, properties, server_table, source, table
from bloomery.settings.layers import Found
from bloomery.settings.migration_lmi import HANDLERS, MODEL, OTHER_ENGINES, VARIABLES, WORKERS
from bloomery.settings.migration_row import Row, Verdict, differs, refused, same
from bloomery.settings.migration_tgi import TGI
from bloomery.settings.secret import guard
from bloomery.settings.table import Setting

_OF_KEYS = (*MODEL, *WORKERS, *OTHER_ENGINES, *HANDLERS)
_SETTINGS = {setting.key: setting for setting in (*table.MODEL, *server_table.SERVER)}
_BY_VARIABLE = {name: setting for setting in _SETTINGS.values() for name in setting.variables}
_FILES = (
    same("model.py", "the handler; it runs once per worker, as module model"),
    differs("requirements.txt", "installed for this model alone; what cannot be installed fails the load"),
    refused("MAR-INF", "a TorchServe archive: put its handler into a model.py with handle(inputs)"),
)


@dataclass(frozen=True)
class Finding:
    """What becomes of one setting. ``value`` prints without secrets."""

    name: str
    value: str
    verdict: Verdict
    how: str
    origin: str


def of_directory(directory: Path) -> list[Finding]:
    """Of the keys in a model directory's serving.properties, and of the files that mean something."""
    if not directory.is_dir():
        raise ConfigurationError(f"{directory} is no directory; name the one that holds serving.properties")
    file = directory / source.PROPERTIES
    stated = properties.read(file) if file.is_file() else {}
    findings = [_finding(key, found, _of_key(key, found.text)) for key, found in stated.items()]
    present = (row for row in _FILES if (directory / row.key).exists())
    findings += [Finding(row.key, "", row.verdict, row.how, str(directory)) for row in present]
    if not findings:
        raise ConfigurationError(f"{directory} has no serving.properties, model.py or requirements.txt to be checked")
    return findings


def of_variables(stated: Mapping[str, str], origin: str, *, known_only: bool = False) -> list[Finding]:
    """Of environment variables; with ``known_only`` those that nobody here has heard of are left out."""
    found = ((name, _of_variable(name, value), Found(value, origin)) for name, value in sorted(stated.items()))
    return [_finding(name, each, row) for name, row, each in found if not (known_only and row is _INHERITED)]


_INHERITED = same("", "not read by the server; it reaches the worker processes as it is")


def _finding(name: str, found: Found, row: Row) -> Finding:
    return Finding(name, str(guard(name, found.text.strip())), row.verdict, row.how, found.origin)


def _of_variable(name: str, value: str) -> Row:
    if row := _first((*TGI, *VARIABLES), name, value):
        return row
    if name == "PIPELINE_PARALLEL_DEGREE":
        return _of_key("option.pipeline_parallel_degree", value)
    if name in image_variables.WITHOUT_EFFECT or name in image_variables.REMARKS:
        reason = image_variables.WITHOUT_EFFECT.get(name) or image_variables.REMARKS[name]
        return differs(name, f"no effect: {reason}")
    if name.startswith(environment.PREFIX) and name not in _BY_VARIABLE:
        return _of_serving(name)
    if (key := environment.key_of(name)) is None:
        return _INHERITED
    row = _of_key(key, value)
    return Row(key, row.verdict, f"{key}: {row.how}" if row.how else key)


def _of_serving(name: str) -> Row:
    key = name.removeprefix(environment.PREFIX).lower()
    if key in server_table.KEYSTORES:
        return refused(name, "write SERVING_CERTIFICATE_FILE and SERVING_PRIVATE_KEY_FILE (PEM)")
    if reason := server_table.without_effect(key):
        return differs(name, f"no effect: {reason}")
    return refused(name, "there is no such setting")


def _of_key(key: str, value: str) -> Row:
    """Of a key of serving.properties, or of config.properties when a variable has led here."""
    kind, _, rest = key.partition(".")
    first = rest if kind in ("gpu", "cpu") and rest in table.WORKERS else key
    first = next((setting.key for setting in table.MODEL if key in setting.aliases), first)
    row = _first(_OF_KEYS, first, value) or _of_our_own(key, first)
    setting = _SETTINGS.get(first)
    if setting is not None and row.verdict != "refused" and (wanted := _wrong(setting, value)):
        return refused(key, f"it must be {wanted}")
    return row


def _of_our_own(key: str, first: str) -> Row:
    """Of a key without a row: known to our own tables, a handler's own, or nobody's."""
    if first in _SETTINGS:
        return same(key, _SETTINGS[first].meaning)
    if first in table.OPTIONS:
        return same(key, "read by the built-in handlers")
    if problem := keys.oddity(key):
        return differs(key, problem) if key.startswith("option.") else refused(key, problem)
    return differs(key, "reaches the handler as it is; the built-in ones do not read it")


def _wrong(setting: Setting, value: str) -> str:
    if not value.strip():
        return ""
    try:
        setting.parse(value)
    except ValueError as error:
        return str(error)
    return ""


def _first(rows: Iterable[Row], key: str, value: str) -> Row | None:
    return next((row for row in rows if row.key == key and row.matches(value)), None)


def page() -> str:
    """The whole table as a page of the documentation."""
    own = [same(key, _SETTINGS[key].meaning) for key in _SETTINGS if key not in {row.key for row in _OF_KEYS}]
    options = [row for row in own if row.key in {setting.key for setting in table.MODEL}]
    server = [row for row in own if row not in options]
    server += [refused(key, "write certificate_file and private_key_file (PEM)") for key in server_table.KEYSTORES]
    server += [differs(key, f"no effect: {reason}") for key, reason in server_table.KEYS_WITHOUT_EFFECT.items()]
    variables = list(VARIABLES)
    listed = {row.key for row in TGI}
    variables += [same(name, f"means {key}") for name, key in table.OPTION_VARIABLES.items() if name not in listed]
    told = image_variables.WITHOUT_EFFECT | image_variables.REMARKS
    variables += [differs(name, f"no effect: {reason}") for name, reason in told.items()]
    sections = {
        "Model and engine": [*MODEL, *options],
        "Workers, queue and batches": list(WORKERS),
        "Options of vLLM, lmi-dist, TensorRT-LLM and Neuron": list(OTHER_ENGINES),
        "Options of the built-in handlers": list(HANDLERS),
        "The server (config.properties, SERVING_ variables)": server,
        "Variables of the images": variables,
        "TGI's launcher": list(TGI),
        "Files of a model directory": list(_FILES),
    }
    return _INTRODUCTION + "".join(_section(title, rows) for title, rows in sections.items())


_INTRODUCTION = """# From LMI, DJLServing or TGI to bloomery

`bloomery check DIR` looks at the `serving.properties` of a model directory and `bloomery check --env FILE` (or `-`
for standard input) at a set of variables: an env file, `docker run -e` lines, or SageMaker's `Environment` as JSON;
`--env-now` takes those of the present environment. Each setting is the **same** here, **different** (accepted; the
table says what is so instead), or **refused** (it has to be changed; the table says into what). The exit code is 1 if
anything is refused.

An option is meant as a key of `serving.properties` and as its variable: `option.dtype` is `OPTION_DTYPE`, and
`batch_size` is `SERVING_BATCH_SIZE`. Options that are not listed reach the handler as they are.

This page is what `bloomery check --table` prints.
"""


def _section(title: str, rows: Sequence[Row]) -> str:
    return f"\n## {title}\n\n| key | value | here | |\n|---|---|---|---|\n" + "".join(_lines(rows))


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        values = row.shown or ", ".join(
            f"`{word}`" for word in row.values.split("|") if word.replace("-", "").isalnum()
        )
        if row.values and not values:
            values = "other"
        how = row.how.replace("|", "\\|")
        yield f"| `{row.key}` | {values} | {row.verdict} | {how} |\n"
