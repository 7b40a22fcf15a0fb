"""What an account may have, and what it pays: small tables, which ``--tables FILE.json`` overrides row by row.

Quotas differ from account to account, so these are no figures of AWS; their codes are as users report them. Prices are
USD per hour of real-time hosting on demand, from AWS's foundation-model-benchmarking-tool (github.com/aws-samples,
src/fmbench/configs/pricing.yml, commit 00ef155; read 2026-11-24), taken to be us-east-1's. A type without a published
figure has no price.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bloomery.errors import ConfigurationError
from bloomery.sagemaker.instances import INSTANCE_TYPES

QUOTA = 100  # instances of each type, unless the user says otherwise
_REGION = "us-east-1"
_PRICES = {
    "ml.m5.xlarge": 0.23,
    "ml.g4dn.12xlarge": 4.89,
    "ml.g5.xlarge": 1.4084,
    "ml.g5.2xlarge": 1.515,
    "ml.g5.12xlarge": 7.09,
    "ml.g5.24xlarge": 10.18,
    "ml.g5.48xlarge": 20.36,
    "ml.g6.2xlarge": 1.222,
    "ml.g6.16xlarge": 4.246,
    "ml.g6.12xlarge": 5.752,
    "ml.g6.24xlarge": 8.344,
    "ml.g6.48xlarge": 16.688,
    "ml.inf2.xlarge": 0.99,
    "ml.inf2.8xlarge": 2.36,
    "ml.inf2.24xlarge": 7.79,
    "ml.inf2.48xlarge": 15.58,
    "ml.trn1.32xlarge": 28.497,
    "ml.p3.2xlarge": 3.825,
    "ml.p4d.24xlarge": 37.688,
    "ml.p5.48xlarge": 113.068,
}
_CODES = {
    "ml.g5.xlarge": "L-1928E07B",
    "ml.g5.2xlarge": "L-9614C779",
    "ml.g5.4xlarge": "L-C1B9A48D",
    "ml.g5.12xlarge": "L-65C4BD00",
    "ml.g6.xlarge": "L-D470D954",
    "ml.g6.2xlarge": "L-98BDE811",
    "ml.g6.4xlarge": "L-DFB10FDE",
    "ml.g6.12xlarge": "L-0A29AACF",
    "ml.g6e.xlarge": "L-B0729CB4",
    "ml.g6e.2xlarge": "L-F8D7F460",
    "ml.g6e.4xlarge": "L-93531071",
    "ml.g6e.8xlarge": "L-96A28D02",
    "ml.g6e.12xlarge": "L-60313EA3",
    "ml.g6e.16xlarge": "L-2930A179",
    "ml.g6e.24xlarge": "L-AE407E8B",
    "ml.g6e.48xlarge": "L-E0C458EA",
    "ml.p4d.24xlarge": "L-09F79647",
    "ml.p4de.24xlarge": "L-456B4C5F",
    "ml.p5.48xlarge": "L-16AF71F1",
}


@dataclass(frozen=True)
class AccountTables:
    """By instance type. ``quotas``: only the user's own."""

    quotas: Mapping[str, int] = field(default_factory=dict)
    prices: Mapping[str, Mapping[str, float]] = field(  # USD per hour, by region
        default_factory=lambda: {name: {_REGION: price} for name, price in _PRICES.items()}
    )

    @property
    def types(self) -> list[str]:
        """All that are known, sorted."""
        return sorted({*INSTANCE_TYPES, *self.quotas, *self.prices})

    def quota(self, instance_type: str) -> int:
        """The instances of a type that endpoints may have together."""
        return self.quotas.get(instance_type, QUOTA)

    @classmethod
    def read(cls, file: Path) -> AccountTables:
        """Ours, with the rows of ``file`` in the place of the same ones of ours. Raises ConfigurationError."""
        try:
            given = json.loads(file.read_text())
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"--tables {file}: {error}") from error
        if not isinstance(given, dict) or not set(given) <= {"quotas", "prices"}:
            raise ConfigurationError(f'--tables {file}: an object with "quotas" and "prices", and nothing else')
        quotas = {name: int(_number(file, f"quotas.{name}", each)) for name, each in _rows(file, given, "quotas")}
        prices = {
            name: {
                region: _number(file, f"prices.{name}.{region}", price)
                for region, price in _rows(file, {name: by_region}, name)
            }
            for name, by_region in _rows(file, given, "prices")
        }
        return cls(quotas, {**cls().prices, **prices})


def quota_code(instance_type: str) -> str:
    """AWS's code of a quota where it is known; elsewhere one of our own, always the same."""
    return _CODES.get(instance_type) or f"L-{zlib.crc32(instance_type.encode()):08X}"


def _rows(file: Path, given: Mapping[str, Any], name: str) -> list[tuple[str, Any]]:
    rows = given.get(name, {})
    if not isinstance(rows, dict):
        raise ConfigurationError(f"--tables {file}: {name} is an object, not {rows!r}")
    return list(rows.items())


def _number(file: Path, path: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (0 <= value < math.inf):
        raise ConfigurationError(f"--tables {file}: {path} is a number from 0 on, not {value!r}")
    return float(value)
