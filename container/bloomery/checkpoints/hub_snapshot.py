"""Fetch a model from a hub (huggingface.co, or whatever HF_ENDPOINT names) with huggingface_hub."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from bloomery.checkpoints.choice import wanted_files
from bloomery.checkpoints.delivery import PHASE
from bloomery.errors import CheckpointError
from bloomery.processes import rank

log = logging.getLogger(__name__)


def fetch(
    model_id: str, target: Path, revision: str | None = None, allow_patterns: Sequence[str] | None = None
) -> None:
    """Make ``target`` hold the wanted files of ``model_id``. The caller holds the lock of ``target``."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read when huggingface_hub is imported
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    rank.current.report(PHASE)
    token = os.environ.get("HF_TOKEN")
    try:
        info = HfApi().model_info(model_id, revision=revision, token=token, files_metadata=True)
        sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        wanted = wanted_files(sizes, allow_patterns)
        log.info("fetching %s at %s from the hub into %s", model_id, info.sha, target)
        snapshot_download(model_id, revision=info.sha, local_dir=target, token=token, allow_patterns=wanted)
    except GatedRepoError as error:
        raise CheckpointError(
            f"{model_id} is gated: accept its licence on the hub, then set HF_TOKEN to a token of that account."
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"{model_id} is neither a directory here (looked in {Path.cwd()}) nor a model on the hub: check the name, "
            "and set HF_TOKEN if it is private."
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(f"{model_id} has no revision {revision!r} on the hub.") from error
    except CheckpointError:
        raise
    except Exception as error:  # which library's errors tell of a network depends on huggingface_hub's version
        raise CheckpointError(
            f"{model_id} is not a directory here (looked in {Path.cwd()}) and could not be fetched from the hub "
            f"({type(error).__name__}: {error}): check the name and the network, or give a directory."
        ) from error
