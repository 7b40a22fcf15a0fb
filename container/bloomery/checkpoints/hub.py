"""A model hub."""

from bloomery.checkpoints.hub_snapshot import fetch as fetch
