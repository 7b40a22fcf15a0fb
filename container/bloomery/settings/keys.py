"""What a user should hear about a key that nobody reads, or not in that place."""

from __future__ import annotations

import difflib

from bloomery.settings import table
from bloomery.settings.server_table import SERVER, SERVER_KEYS

QUOTED = "the quotes around the value are part of it; leave them out"


def is_quoted(value: str) -> bool:
    """Whether all of ``value`` stands in quotes, as in a shell or in YAML; properties and env files know none."""
    quote = value[:1]
    return len(value) > 1 and quote in ("'", '"') and value[-1] == quote and quote not in value[1:-1]


def oddity(key: str) -> str:
    """What is wrong with ``key`` in a model's serving.properties; "" when it is known, or a handler's own."""
    if key in table.WITHOUT_EFFECT:
        return "has no effect in this server"
    if key.startswith("option."):
        lower = {option.lower(): option for option in table.OPTIONS}
        close = [] if key in table.OPTIONS else difflib.get_close_matches(key.lower(), lower, 1, 0.85)
        return f"goes to the handler as it is; did you mean {lower[close[0]]}?" if close else ""
    if key in SERVER_KEYS:
        variables = next(setting.variables for setting in SERVER if setting.key == key)
        return f"is a setting of the server, not of a model; set the environment variable {variables[0]}"
    known = (*table.BARE_KEYS, *(f"{kind}.{name}" for kind in ("gpu", "cpu") for name in table.WORKERS))
    known += tuple(alias for setting in table.MODEL for alias in setting.aliases)
    if key in known:
        return ""
    if f"option.{key}" in table.OPTIONS:
        return f"is not a key here; did you mean option.{key}?"
    close = difflib.get_close_matches(key, [*known, *SERVER_KEYS, *table.OPTIONS], 1)
    advice = f"did you mean {close[0]}?" if close else "a handler's own keys begin with option."
    return f"is not a key here; {advice}"
