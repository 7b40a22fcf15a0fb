"""Random checkpoints of published sizes, written once: ``python -m bloomery.bench.checkpoints FAMILY DIRECTORY``.

In fp16, as the published ones are. Speed does not depend on what the weights say.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

HIDDEN, LAYERS, HEADS, VOCABULARY = 1024, 24, 16, 50272
# opt-350m itself normalises after its blocks and projects its embeddings; DeepSpeed's injection knows only OPTs that
# normalise before, which all the larger ones do. BLOOM gets OPT's vocabulary, or a quarter of a million rows of head
# would hide everything else.
FAMILIES: dict[str, dict[str, Any]] = {
    "opt": {
        "hidden_size": HIDDEN,
        "word_embed_proj_dim": HIDDEN,
        "ffn_dim": 4 * HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 2048,
        "do_layer_norm_before": True,
    },
    "bloom": {"hidden_size": HIDDEN, "n_layer": LAYERS, "n_head": HEADS, "vocab_size": VOCABULARY},
}


def cache_directory() -> Path:
    """Where the checkpoints are kept between runs."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "bloomery" / "bench"


def ensure(family: str, layers: int = LAYERS) -> Path:
    """The checkpoint's directory; made first, in a process of its own, when it is not there."""
    directory = cache_directory() / f"{family}-{HIDDEN}x{layers}"
    if not (directory / "config.json").is_file():
        print(f"making a random {family} checkpoint of {layers} layers in {directory}", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "bloomery.bench.checkpoints", family, str(directory), str(layers)]
        subprocess.run(command, check=True)
    return directory


def _make(family: str, directory: Path, layers: int) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    sizes = {
        key: layers if key in ("n_layer", "num_hidden_layers") else value for key, value in FAMILIES[family].items()
    }
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **sizes), dtype=torch.float16)
    partial = directory.with_name(f"{directory.name}.{os.getpid()}")
    try:
        model.save_pretrained(partial)
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


if __name__ == "__main__":
    _make(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
