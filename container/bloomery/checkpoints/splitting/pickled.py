"""Torch's own files: tensors only, mapped and not read."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, cast

import torch

from bloomery.errors import CheckpointError
from bloomery.settings.security import PICKLES, Security

log = logging.getLogger(__name__)


def load_tensors(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a torch file, mapped where its format allows; nothing but tensors is unpickled.

    Raises CheckpointError, and ConfigurationError where SageMaker's security controls forbid even that.
    """
    Security.read(os.environ).refuse(PICKLES, f"{file}, a pickle", "convert the checkpoint to safetensors")
    try:
        found = _loaded(file).items()
        return {name: value.detach() for name, value in found if isinstance(value, torch.Tensor)}
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises a dozen kinds, and its texts are pages long
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [repr(error)]
        told = next((line for line in lines if "WeightsUnpickler" in line), lines[0])
        raise CheckpointError(
            f"{file} cannot be read as a checkpoint: it is damaged, or holds more than tensors ({told[:300]})"
        ) from error


def _loaded(file: Path) -> dict[str, Any]:
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
        log.warning("%s is in torch's old format, which must be read whole into memory", file)
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    return cast(dict[str, Any], loaded)


class PickledFile:
    """A ``.bin`` file with the face of safetensors' ``safe_open``."""

    def __init__(self, file: Path) -> None:
        self._tensors = load_tensors(file)

    def keys(self) -> list[str]:
        """Every tensor's name."""
        return list(self._tensors)

    def get_slice(self, name: str) -> TensorSlice:
        """As safetensors'."""
        return TensorSlice(self._tensors[name])


class TensorSlice:
    """A tensor with the face of a safetensors slice."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def get_shape(self) -> list[int]:
        """Of the whole."""
        return list(self._tensor.shape)

    def __getitem__(self, index: Any) -> torch.Tensor:
        return self._tensor[index]
