"""The process that has the unsharded model: ``python -m bloomery.bench.verifying.reference``.

Every answer is gone through with the tokens that the endpoint chose ("teacher forcing"): one divergence does not make
all that follows incomparable. The model is transformers' own, in fp32. It is gone through once more in the number
format that the endpoint serves in: what that changes is what the format explains.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from bloomery.errors import BloomeryError

TOP = 10  # tokens per position whose log-probabilities are compared: those that could be chosen
_CANDIDATES = 256  # tokens that are tried as the next piece of a text
_UNFINISHED = "\ufffd"  # what half a character is decoded to
_DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}


def main() -> None:
    """Two lines of JSON come, and each is answered by one: which checkpoint, and what was served."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    for step in (_locate, _examine):
        line = sys.stdin.readline()
        if not line:  # the endpoint could not be asked
            return
        try:
            found = step(json.loads(line))
        except BloomeryError as error:
            found = {"error": str(error)}
        except ImportError as error:
            found = {"error": f"torch and transformers are needed: pip install 'bloomery[engines]' ({error})"}
        answers.write(json.dumps(found) + "\n")


def _locate(job: dict[str, Any]) -> dict[str, Any]:
    """Fetched now, where it is not here yet: before the endpoint computes for nothing."""
    from bloomery.checkpoints.checkpoint import locate

    return {"path": str(locate(job["reference"], revision=job["revision"]).on_disk())}


def _examine(job: dict[str, Any]) -> dict[str, Any]:
    return examine(job["path"], job["dtype"], job["new_tokens"], job["served"])


def examine(path: str, dtype: str | None, new_tokens: int, served: list[dict[str, Any]]) -> dict[str, Any]:
    """``path``: the checkpoint's directory; ``served``: as Served has it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    dtype = dtype or _stored(AutoConfig.from_pretrained(path))
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    described = _described(model)
    with torch.inference_mode():
        rows = [_Row(each, tokenizer, new_tokens) for each in served]
        for row in rows:
            row.look(model, torch)
        model = _in_format(model, dtype, torch)
        for row in rows:
            row.look_again(model, torch)
    return {"dtype": dtype, "model": described, "rows": [row.found for row in rows]}


class _Row:
    """One answer: per position what the endpoint chose, what the reference prefers, and by how much."""

    def __init__(self, served: dict[str, Any], tokenizer: Any, new_tokens: int) -> None:
        self._tokenizer, self._served, self._new = tokenizer, served, new_tokens
        self._prompt: list[int] = list(tokenizer(served["prompt"])["input_ids"])
        self._ids: list[int] = []
        self._top: list[Any] = []
        self._log_probs: list[Any] = []
        self.found: dict[str, Any] = {"positions": [], "noise": 0.0, "swing": 0.0, "unknown_text": None}

    def look(self, model: Any, torch: Any) -> None:
        """In fp32."""
        ids = self._served["ids"]
        self._ids = self._follow(model, torch) if ids is None else self._with_end(list(ids))
        if not self._ids:
            return
        vocabulary = model.config.get_text_config().vocab_size
        if max(self._ids) >= vocabulary:
            self.found["unknown_text"] = f"token {max(self._ids)}, of a vocabulary of {vocabulary}"
            self._ids = []
            return
        for index, row in enumerate(self._all(model, torch)):
            chosen = self._ids[index]
            best = int(row.argmax())
            # Not the chosen one: how far an absurd choice moves would excuse it, and all others.
            wanted = row.topk(min(TOP, len(row))).indices
            self._top.append(wanted)
            self._log_probs.append(row[wanted])
            self.found["positions"].append(
                {
                    "served": chosen,
                    "served_text": self._tokenizer.decode([chosen]),
                    "best": best,
                    "best_text": self._tokenizer.decode([best]),
                    "gap": float(row[best] - row[chosen]),
                    "log_prob": float(row[chosen]),
                }
            )

    def look_again(self, model: Any, torch: Any) -> None:
        """In the served format. ``noise``: how far a log-probability moved; ``swing``: how far the difference of two
        moved, which is what can put one token before another."""
        if not self._ids:
            return
        for row, wanted, before in zip(self._all(model, torch), self._top, self._log_probs, strict=True):
            moved = row[wanted] - before
            self.found["noise"] = max(self.found["noise"], float(moved.abs().max()))
            self.found["swing"] = max(self.found["swing"], float(moved.max() - moved.min()))

    def _all(self, model: Any, torch: Any) -> Any:
        """[new tokens, vocabulary]: log-probabilities of what may follow each prefix, in fp64 so that their own
        rounding plays no part."""
        logits = model(torch.tensor([self._prompt + self._ids[:-1]])).logits[0, len(self._prompt) - 1 :]
        return logits.double().log_softmax(-1)

    def _with_end(self, ids: list[int]) -> list[int]:
        """Some servers do not list the token that ended the text, which was a choice like the others."""
        end = self._tokenizer.eos_token_id
        if self._served["ended"] and end is not None and len(ids) < self._new and ids[-1:] != [end]:
            return [*ids, int(end)]
        return ids

    def _follow(self, model: Any, torch: Any) -> list[int]:
        """The tokens of a text, as the model itself would say it: at each step its likeliest one that fits."""
        text, ids, cache = self._served["text"], list[int](), None
        fresh = self._prompt
        before = len(self._decoded([]))
        while len(ids) < self._new and self._decoded(ids)[before:] != text:
            answer = model(torch.tensor([fresh]), past_key_values=cache, use_cache=True)
            cache = answer.past_key_values
            chosen = next(self._fitting(answer.logits[0, -1], ids, text, before), None)
            if chosen is None:
                self.found["unknown_text"] = text[len(self._decoded(ids)[before:].rstrip(_UNFINISHED)) :][:40]
                break
            ids.append(chosen)
            fresh = [chosen]
        return ids

    def _fitting(self, logits: Any, ids: Sequence[int], text: str, before: int) -> Iterator[int]:
        reached = len(self._decoded(ids)[before:].rstrip(_UNFINISHED))
        for token in logits.topk(min(_CANDIDATES, len(logits))).indices.tolist():
            whole = self._decoded([*ids, token])[before:]
            certain = whole.rstrip(_UNFINISHED)
            if text.startswith(certain) and (len(certain) > reached or len(certain) < len(whole)):
                yield token

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode([*self._prompt, *ids], skip_special_tokens=True))


def _stored(config: Any) -> str:
    """What the checkpoint was saved in, which is what a server computes in unless it is told otherwise."""
    name = str(config.dtype).removeprefix("torch.")
    return next((short for short, long in _DTYPES.items() if long == name), "fp32")


def _in_format(model: Any, dtype: str, torch: Any) -> Any:
    """The model as ``dtype`` has it. fp32 is compared with fp64: the difference is what fp32 rounds."""
    if dtype == "int8":
        _round_to_int8(model, torch)
        return model
    return model.to(torch.float64 if dtype == "fp32" else getattr(torch, _DTYPES[dtype]))


def _round_to_int8(model: Any, torch: Any) -> None:
    """Weight-only, symmetric, one scale per output: as the engines do, and ``bloomery shard --dtype int8``."""
    for module in model.modules():
        kind = type(module).__name__
        if kind not in ("Linear", "Conv1D"):  # Conv1D: GPT-2's, which keeps its weight the other way round
            continue
        weight = module.weight
        scale = weight.abs().amax(1 if kind == "Linear" else 0, keepdim=True).clamp(min=1e-20) / 127
        # A weight that is shared with the embedding is replaced here alone: embeddings are not rounded.
        module.weight = torch.nn.Parameter((weight / scale).round().clamp(-127, 127) * scale, requires_grad=False)


def _described(model: Any) -> str:
    return f"{model.config.model_type}, {sum(each.numel() for each in model.parameters()):,} parameters"


if __name__ == "__main__":
    main()
