"""Build a model on the meta device and fill this rank's share of it from a checkpoint."""

from __future__ import annotations

from bloomery.engines.reader import CheckpointReader

__all__ = ["CheckpointReader"]
