"""``bloomery explain``: every setting, its source, and what it overrode."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from bloomery import cli
from bloomery.cli.reading import Wanted
from bloomery.settings import Explained, Settings
from bloomery.settings.secret import redact


def explain(wanted: Wanted, as_json: bool) -> int:
    """Print the settings; the exit code."""
    loaded = wanted.settings()
    loaded.unpacked.remove()
    if as_json:
        print(redact(json.dumps(document(loaded), indent=2)))
        return cli.OK
    sys.stdout.write(redact(table(loaded.explained)))
    for notice in loaded.notices:
        print(redact(f"warning: {notice}"), file=sys.stderr)
    for remark in loaded.remarks:
        print(redact(f"note: {remark}"), file=sys.stderr)
    return cli.OK


def document(loaded: Settings) -> dict[str, object]:
    """The same for programs."""
    settings = [
        {
            "scope": row.scope,
            "key": row.key,
            "value": row.value,
            "source": row.origin,
            "overrode": [{"value": each.value, "source": each.origin} for each in row.overrode],
        }
        for row in loaded.explained
    ]
    return {"settings": settings, "warnings": loaded.notices, "notes": loaded.remarks}


def table(rows: Sequence[Explained]) -> str:
    """Aligned columns, one block per scope; below a setting, what weaker sources said."""
    key_width = max((len(row.key) for row in rows), default=0)
    value_width = min(48, max((len(row.value) for row in rows), default=0))
    lines = []
    scope = None
    for row in rows:
        if row.scope != scope:
            lines.append(("\n" if scope else "") + (row.scope if row.scope == "server" else f"model {row.scope}"))
            scope = row.scope
        lines.append(f"  {row.key:<{key_width}}  {(row.value or '-'):<{value_width}}  {row.origin}")
        for each in row.overrode:
            lines.append(
                f"  {'':<{key_width}}  {'':<{value_width}}    overrides {each.value or '-'} from {each.origin}"
            )
    return "\n".join(lines) + "\n"
