"""Compare models split by DeepSpeed with the same models whole, in plain transformers and fp32.

One process (one rank) and one pair of processes (two ranks) go through all cases one after the other, because starting
a process costs more than a tiny model. ``run`` returns what each case measured; tests judge it. As a command:

    python -m tests.support.parity [--device auto|cpu|cuda] [--json] [--only WORD]
"""

from __future__ import annotations

import argparse
import gc
import inspect
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-4
NEW_TOKENS = 16
# Lengths differ, so a batch is left-padded; the longest passes GPT-Neo's local window of 8 tokens.
PROMPTS = [[17, 230, 41, 99, 5], [300, 12, 77, 150, 33, 208, 64, 9, 121, 275, 18, 50], [88, 140, 7, 260, 31, 199, 72]]
ONE_TOKEN = [[140]]

# What DeepSpeed's injected layers need: an MLP of four times the hidden size, which the tiny models do not have.
_WIDE: dict[str, dict[str, Any]] = {"opt": {"ffn_dim": 256}, "gpt_neox": {"intermediate_size": 256}}
_VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    # As opt-350m: norms after attention and MLP, and embeddings narrower than the layers.
    "opt-post-norm": ("opt", {"do_layer_norm_before": False, "word_embed_proj_dim": 32, "ffn_dim": 256}),
}
ENCODERS = ("bert", "roberta", "xlm-roberta")
AUTO_TP = (
    "bloom", "opt", "opt-post-norm", "gpt2", "gpt_neo", "gptj", "gpt_neox", "llama", "mistral", "qwen2", "qwen3",
)  # fmt: skip
INJECTED = ("bloom", "opt", "gpt2", "gpt_neo", "gptj", "gpt_neox")


@dataclass(frozen=True)
class Case:
    """One model, split one way. ``way``: autotp, injection, or injection of a model that holds its weights."""

    model: str
    way: str
    ranks: int

    def __str__(self) -> str:
        return f"{self.model}-{self.way}-{self.ranks}"


@dataclass
class Measured:
    """What one rank saw. Token lists are per prompt; ``wanted`` holds plain transformers' answers by the same keys."""

    case: str
    rank: int
    error: str = ""
    logits_error: float = float("nan")
    logits_scale: float = float("nan")
    tokens: dict[str, list[list[int]]] = field(default_factory=dict)
    wanted: dict[str, list[list[int]]] = field(default_factory=dict)

    @property
    def right(self) -> bool:
        """Within tolerance, and the same tokens everywhere."""
        return not self.error and self.logits_error <= TOLERANCE and self.tokens == self.wanted


def cases() -> list[Case]:
    """Everything that must be equal. GPT-2 over two ranks is for injection alone: AutoTP refuses it."""
    found = [Case(model, "autotp", ranks) for model in AUTO_TP + ENCODERS for ranks in (1, 2)]
    found = [case for case in found if case != Case("gpt2", "autotp", 2)]
    found += [Case(model, "injection", ranks) for model in INJECTED for ranks in (1, 2)]
    return found + [Case(model, "injection-of-loaded", 2) for model in INJECTED]


# The parent


def run(
    wanted: Sequence[Case], directory: Path, device: str = "cpu", timeout: float = 280
) -> dict[str, list[Measured]]:
    """Measure ``wanted``: for each case's name, one entry per rank."""
    groups = {ranks: [case for case in wanted if case.ranks == ranks] for ranks in (1, 2)}
    started = [
        (ranks, rank, process)
        for ranks, group in groups.items()
        if group
        for rank, process in enumerate(_start(ranks, group, directory, device))
    ]
    deadline = time.monotonic() + timeout
    for _, _, process in started:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    found: dict[str, list[Measured]] = {str(case): [] for case in wanted}
    for ranks, rank, process in started:
        seen = set()
        for line in _results(directory, ranks, rank).read_text().splitlines():
            measured = Measured(**json.loads(line))
            found[measured.case].append(measured)
            seen.add(measured.case)
        log = _log(directory, ranks, rank).read_text()[-1500:]
        for case in groups[ranks]:
            if str(case) not in seen:
                reason = f"rank {rank} of {ranks} ended with code {process.returncode} before this case: {log}"
                found[str(case)].append(Measured(str(case), rank, reason))
    return found


def _start(ranks: int, group: list[Case], directory: Path, device: str) -> list[subprocess.Popen[bytes]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = []
    for rank in range(ranks):
        _results(directory, ranks, rank).touch()
        environment = {
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'container'}:{ROOT}",
            "OMP_NUM_THREADS": "1",
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(ranks),
            "LOCAL_WORLD_SIZE": str(ranks),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        if device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        command = [sys.executable, "-m", "tests.support.parity", "--rank", str(directory), *map(str, group)]
        with _log(directory, ranks, rank).open("wb") as log:
            processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log))
    return processes


def _results(directory: Path, ranks: int, rank: int) -> Path:
    return directory / f"results-{ranks}-{rank}.jsonl"


def _log(directory: Path, ranks: int, rank: int) -> Path:
    return directory / f"log-{ranks}-{rank}.txt"


# A rank


@dataclass
class _Whole:
    """A checkpoint and what plain transformers makes of it."""

    path: Path
    logits: Any
    tokens: dict[str, list[list[int]]]


def rank_main(directory: Path, names: Sequence[str]) -> None:
    """Go through the cases; the first error ends this rank, because its peers would wait for it."""
    import torch

    torch.set_num_threads(1)
    ranks, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
    todo = [case for case in cases() if str(case) in names]
    models = {case.model for case in todo}
    # All at once and before the ranks join: a process of a group writes no checkpoint unless it is rank 0.
    wholes = {model: _whole(model, directory / f"{ranks}-{rank}" / model) for model in sorted(models)}
    with _results(directory, ranks, rank).open("a", buffering=1) as results:
        for case in todo:
            try:
                measured = _measure(case, wholes[case.model], rank)
            except Exception:
                measured = Measured(str(case), rank, traceback.format_exc())
            results.write(json.dumps(asdict(measured)) + "\n")
            if measured.error:
                results.flush()
                os._exit(1)
            gc.collect()


def whole_model(model: str) -> Any:
    """The model in plain transformers, with large random weights, the same in every process."""
    import torch
    import transformers
    from tests.support.tiny_models import randomise, tiny_config

    family, config = _VARIANTS.get(model, (model, _WIDE.get(model, {})))
    if model in ENCODERS:
        whole = transformers.AutoModelForMaskedLM.from_config(_encoder_config(model), dtype=torch.float32)
    else:
        whole = transformers.AutoModelForCausalLM.from_config(tiny_config(family, **config), dtype=torch.float32)
        whole.generation_config.eos_token_id = None
    whole.eval()
    randomise(whole)
    with torch.no_grad():
        for name, parameter in whole.named_parameters():
            # Blocks must outweigh the embeddings, or a tied head repeats one token whatever the attention sees.
            if parameter.dim() > 1 and any(part.isdigit() for part in name.split(".")):
                parameter.mul_(2)
    whole.tie_weights()
    return whole


def _whole(model: str, path: Path) -> _Whole:
    import torch

    whole = whole_model(model)
    whole.save_pretrained(path)
    tokens = {}
    if model not in ENCODERS:
        for name, prompts in _requests().items():
            inputs = padded(prompts)
            with torch.no_grad():
                made = whole.generate(**inputs, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=3)
            tokens[name] = made[:, inputs["input_ids"].shape[1] :].tolist()
    return _Whole(path, logits_of(whole), tokens)


def _requests() -> dict[str, list[list[int]]]:
    """In this order: the second call repeats the first, the third has more rows, the last prompt has one token."""
    return {"batch": PROMPTS[:2], "repeated": PROMPTS[:2], "grown": PROMPTS, "one token": ONE_TOKEN}


def _encoder_config(model: str) -> Any:
    import transformers

    return transformers.AutoConfig.for_model(
        model, vocab_size=320, hidden_size=64, num_attention_heads=4, num_hidden_layers=2, intermediate_size=128,
        max_position_embeddings=64, pad_token_id=3,
    )  # fmt: skip


def padded(prompts: list[list[int]], device: Any = "cpu") -> dict[str, Any]:
    import torch

    width = max(map(len, prompts))
    ids = [[3] * (width - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return {
        "input_ids": torch.tensor(ids, device=device),
        "attention_mask": torch.tensor(mask, device=device),
    }


def logits_of(model: Any) -> Any:
    """Of every real token of a left-padded batch. [tokens, vocabulary]"""
    import torch

    inputs = padded(PROMPTS, next(model.parameters()).device)
    if "position_ids" in inspect.signature(model.forward).parameters and model.can_generate():
        inputs["position_ids"] = (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = model(**inputs).logits
    return logits[inputs["attention_mask"].bool()].float().cpu()


def _measure(case: Case, whole: _Whole, rank: int) -> Measured:
    from bloomery.engines import base

    engine = _engine(case, whole.path)
    logits = logits_of(engine.model)
    measured = Measured(
        case=str(case),
        rank=rank,
        logits_error=float((logits - whole.logits).abs().max()),
        logits_scale=float(whole.logits.abs().max()),
        wanted=whole.tokens,
    )
    parameters = base.GenerationParameters(max_new_tokens=NEW_TOKENS, ignore_eos=True)
    for name in whole.tokens:
        steps = list(engine.generate(_requests()[name], parameters))
        measured.tokens[name] = [list(row) for row in zip(*(step.tokens for step in steps), strict=True)]
    return measured


def _engine(case: Case, path: Path) -> Any:
    from bloomery.engines import deepspeed, generation

    if case.way != "injection-of-loaded":
        # Gloo, because the first start with another choice compiles DeepSpeed's operator in the background.
        options: dict[str, Any] = {"max_tokens": 128, "allreduce": "gloo"}
        return deepspeed.load(path, tensor_parallel=case.ranks, kernel_inject=case.way == "injection", **options)
    import torch
    import transformers

    from bloomery.engines.injection import inject

    deepspeed.start_ranks(case.ranks, "gloo")
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    model = inject(model, dtype=torch.float32, tensor_parallel=case.ranks, max_tokens=128)
    return generation.TransformersEngine("deepspeed", model, model.config.model_type, None, 128, case.ranks)


# The command


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line per case; the exit code says whether all were right."""
    parser = argparse.ArgumentParser(description="Compare models split by DeepSpeed with plain transformers.")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a line per case")
    parser.add_argument("--only", default="", help="cases whose name contains this word")
    parser.add_argument("--rank", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.rank:
        rank_main(chosen.rank, chosen.names)
        return 0
    import torch

    gpus = torch.cuda.device_count()
    device = chosen.device if chosen.device != "auto" else "cuda" if gpus else "cpu"
    wanted = [case for case in cases() if chosen.only in str(case) and (device == "cpu" or case.ranks <= gpus)]
    with tempfile.TemporaryDirectory(prefix="parity-") as directory:
        found = run(wanted, Path(directory), device, timeout=1800)
    right = {name: all(measured.right for measured in ranks) for name, ranks in found.items()}
    if chosen.json:
        print(
            json.dumps(
                {"device": device, "right": right, "measured": {k: [asdict(m) for m in v] for k, v in found.items()}}
            )
        )
    else:
        for name, ranks in found.items():
            worst = max(measured.logits_error for measured in ranks)
            error = next((measured.error.strip().splitlines()[-1] for measured in ranks if measured.error), "")
            print(f"{'right' if right[name] else 'WRONG':5}  {name:34} logits differ by {worst:.1e}  {error}")
    return 0 if all(right.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
