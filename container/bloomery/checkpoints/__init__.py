"""Checkpoints, from wherever they are to where an engine reads them. ``fetch`` needs no torch."""

from bloomery.checkpoints.fetch import fetch

__all__ = ["fetch"]
