"""Checkpoints, from wherever they are to where an engine reads them. ``fetch`` and ``locate`` need no torch."""

from bloomery.checkpoints.checkpoint import Checkpoint, locate
from bloomery.checkpoints.fetch import fetch

__all__ = ["Checkpoint", "fetch", "locate"]
