"""Which part of which weight a rank holds: tables per family, free of torch."""

from bloomery.sharding.families import FAMILIES, Family, family_of, from_row_parallel
from bloomery.sharding.split import GRAIN, WHOLE, Heads, Range, Split, check_heads, shard_sizes, split

__all__ = [
    "FAMILIES",
    "GRAIN",
    "WHOLE",
    "Family",
    "Heads",
    "Range",
    "Split",
    "check_heads",
    "family_of",
    "from_row_parallel",
    "shard_sizes",
    "split",
]
