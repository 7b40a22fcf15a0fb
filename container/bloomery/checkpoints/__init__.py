"""Checkpoints, from wherever they are to where an engine reads them. ``fetch`` and ``locate`` need no torch.

``upload`` is imported at its first use: a fetch has no need of it.
"""

from typing import TYPE_CHECKING

from bloomery.checkpoints.checkpoint import Checkpoint, locate
from bloomery.checkpoints.fetch import fetch
from bloomery.exports import lazily

if TYPE_CHECKING:
    from bloomery.checkpoints.uploading.upload import upload

__all__ = ["Checkpoint", "fetch", "locate", "upload"]
__getattr__ = lazily(__name__, {"uploading.upload": ("upload",)})
