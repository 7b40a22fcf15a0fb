"""The table of ``bloomery explain``."""

from __future__ import annotations

from collections.abc import Sequence

from bloomery.settings import Explained


def table(rows: Sequence[Explained]) -> str:
    """Aligned columns, one block per scope."""
    key_width = max((len(row.key) for row in rows), default=0)
    value_width = min(48, max((len(_shown(row.value)) for row in rows), default=0))
    lines = []
    scope = None
    for row in rows:
        if row.scope != scope:
            lines.append(("\n" if scope else "") + (row.scope if row.scope == "server" else f"model {row.scope}"))
            scope = row.scope
        lines.append(f"  {row.key:<{key_width}}  {_shown(row.value):<{value_width}}  {row.origin}")
    return "\n".join(lines) + "\n"


def _shown(value: str) -> str:
    return value if value and value != "None" else "-"
