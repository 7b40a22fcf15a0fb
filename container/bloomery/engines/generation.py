"""Decode on demand, with all ranks in step: rank 0 chooses the tokens, its peers follow."""

from __future__ import annotations

import difflib
import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.distributed as dist

from bloomery.engines.base import GenerationParameters, Step
from bloomery.errors import BadRequestError, UnsupportedRequestError, WorkerError
from bloomery.processes import rank
from bloomery.protocol.events import FinishReason

log = logging.getLogger(__name__)

_REASONS: tuple[FinishReason | None, ...] = (None, "length", "eos_token", "stop_sequence", "cancelled")
_FAILED = 2
# generate() arguments that would change the shape of the answer or need what a request cannot carry.
_NOT_OURS = (
    "assistant_model", "num_return_sequences", "return_dict_in_generate", "output_scores", "output_logits",
    "output_attentions", "output_hidden_states", "prompt_lookup_num_tokens", "continuous_batching_config",
    "penalty_alpha", "dola_layers", "max_length", "compile_config", "token_healing", "stop_strings", "guidance_scale",
    "watermarking_config", "use_cache", "cache_implementation", "cache_config", "max_time", "pad_token_id",
    "eos_token_id", "max_new_tokens", "num_beams", "do_sample",
)  # fmt: skip

# What a request may ask besides generate()'s other arguments.
_ASKED = {field.name for field in fields(GenerationParameters)} - {"extra"}


@dataclass
class TransformersEngine:
    """A loaded transformers model, whole or one rank's part; ``engines.deepspeed`` and ``accelerate`` make it.

    ``ranks`` > 1: every rank calls ``generate`` with the same arguments and advances it equally often.
    """

    name: str
    model: Any
    model_type: str
    tokenizer: Any
    max_tokens: int
    ranks: int = 1
    beams: bool = True
    before: Callable[[], None] | None = None  # runs before each request (kernel injection resets its cache)

    @property
    def encoder_decoder(self) -> bool:
        """As the model's config says."""
        return bool(self.model.config.is_encoder_decoder)

    def generate(self, input_ids: Sequence[Sequence[int]], parameters: GenerationParameters) -> Iterator[Step]:
        """Continue each prompt; yields one Step per new token. What is wrong with a request is said at once, before
        anything that ranks do together, so that no rank waits for one that refused."""
        if not self.model.can_generate():
            raise UnsupportedRequestError(
                f"{type(self.model).__name__} gives logits and cannot continue a text; load a causal or seq2seq model"
            )
        prompts = [list(prompt) for prompt in input_ids]
        self._check(prompts, parameters)
        config = self._config(parameters)
        if parameters.num_beams > 1:
            return self._beams(prompts, parameters, config)
        return self._steps(prompts, parameters, config)

    # What a request may ask

    def _check(self, prompts: list[list[int]], parameters: GenerationParameters) -> None:
        if not prompts:
            raise BadRequestError("there is no prompt: inputs is an empty list")
        vocabulary = self.model.config.get_text_config().vocab_size
        for row, prompt in enumerate(prompts):
            if not prompt:
                raise BadRequestError(f"prompt {row} is empty: the model needs at least one token to continue")
            if not 0 <= min(prompt) <= max(prompt) < vocabulary:
                raise BadRequestError(f"prompt {row} holds a token outside the model's vocabulary of {vocabulary}")
        new, longest = parameters.max_new_tokens, max(map(len, prompts))
        if new < 1:
            raise BadRequestError(f"max_new_tokens is {new}; it must be at least 1")
        held = longest if self.model.config.is_encoder_decoder else longest + new
        if max(held, new) > self.max_tokens:
            raise BadRequestError(
                f"{longest} prompt tokens + {new} new tokens exceed this model's limit of {self.max_tokens}: shorten "
                f"the prompt, lower max_new_tokens to {max(0, self.max_tokens - longest)}, or load the model with a "
                "higher max_tokens"
            )
        if parameters.top_p is not None and not 0 < parameters.top_p <= 1:
            raise BadRequestError(f"top_p is {parameters.top_p}; it must be above 0 and at most 1")
        if parameters.num_beams < 1:
            raise BadRequestError(f"num_beams is {parameters.num_beams}; it must be at least 1")
        if parameters.num_beams > 1 and not self.beams:
            raise UnsupportedRequestError(
                f"num_beams={parameters.num_beams}: DeepSpeed's injected kernels keep one sequence per row and cannot "
                "search with beams; use num_beams=1, or load the model with kernel_inject=False"
            )

    def _config(self, parameters: GenerationParameters) -> Any:
        from transformers import GenerationConfig

        known = set(GenerationConfig().to_dict())
        for name in parameters.extra:
            if name in _NOT_OURS or name not in known:
                close = difflib.get_close_matches(name, sorted(known - set(_NOT_OURS) | _ASKED), 1)
                raise BadRequestError(
                    f"parameter {name!r} is "
                    + (
                        f"unknown{f'; did you mean {close[0]!r}?' if close else ''}"
                        if name not in known
                        else "not served" + ("; send max_new_tokens" if name == "max_length" else "")
                    )
                )
        self._check_biased(parameters.extra)
        given: dict[str, Any] = {
            "do_sample": parameters.do_sample,
            "max_new_tokens": parameters.max_new_tokens,
            "num_beams": parameters.num_beams,
            "repetition_penalty": parameters.repetition_penalty,
            **parameters.extra,
        }
        if parameters.do_sample:
            given |= {"temperature": parameters.temperature, "top_k": parameters.top_k, "top_p": parameters.top_p}
        given["pad_token_id"] = self._pad()
        # Trainers leave false in checkpoints, and MPT has it so: every step would then read the whole text again.
        given["use_cache"] = True
        if parameters.num_beams > 1 and parameters.ignore_eos:
            given["min_new_tokens"] = parameters.max_new_tokens  # a beam that could end early would be cut there
        try:
            config = GenerationConfig(**{name: value for name, value in given.items() if value is not None})
            config.validate()
        except (ValueError, TypeError) as error:
            raise BadRequestError(f"generation parameters: {error}") from error
        return config

    def _check_biased(self, extra: Mapping[str, Any]) -> None:
        """transformers looks at these ids only while rank 0 chooses a token, when its peers wait already."""
        vocabulary = self.model.config.get_text_config().vocab_size
        for name in ("bad_words_ids", "sequence_bias"):
            wrong = [token for token in _sequences_of_tokens(extra.get(name)) if not 0 <= token < vocabulary]
            if wrong:
                raise BadRequestError(f"parameter {name!r} holds {wrong[0]}: tokens are from 0 to {vocabulary - 1}")

    def _pad(self) -> int:
        found = getattr(self.tokenizer, "pad_token_id", None)
        if found is None:
            found = self.model.generation_config.pad_token_id
        eos = self._eos()
        return int(found if found is not None else eos[0] if eos else 0)

    def _eos(self) -> list[int]:
        found = self.model.generation_config.eos_token_id
        if found is None:
            found = getattr(self.tokenizer, "eos_token_id", None)
        return [] if found is None else [found] if isinstance(found, int) else list(found)

    # Decoding

    def _inputs(self, prompts: list[list[int]]) -> dict[str, torch.Tensor]:
        """Padded on the left, so that every row's next token is its last column; for an encoder on the right, because
        many (BART's) count positions from the first column, padding or not."""
        width = max(map(len, prompts))
        rows = [([self._pad()] * (width - len(prompt)), prompt) for prompt in prompts]
        if self.encoder_decoder:
            ids = [prompt + padding for padding, prompt in rows]
            mask = [[1] * len(prompt) + [0] * len(padding) for padding, prompt in rows]
        else:
            ids = [padding + prompt for padding, prompt in rows]
            mask = [[0] * len(padding) + [1] * len(prompt) for padding, prompt in rows]
        device = self.model.device
        return {
            "input_ids": torch.tensor(ids, device=device),
            "attention_mask": torch.tensor(mask, device=device),
        }

    def _steps(self, prompts: list[list[int]], parameters: GenerationParameters, config: Any) -> Iterator[Step]:
        def decode(
            model: Any, input_ids: torch.Tensor, logits_processor: Any, stopping_criteria: Any, generation_config: Any,
            **model_kwargs: Any,
        ) -> Iterator[Step]:  # fmt: skip
            choose = _Chooser(logits_processor, parameters, frozenset(() if parameters.ignore_eos else self._eos()))
            return self._loop(input_ids, model_kwargs, choose, generation_config)

        if self.before:
            self.before()
        try:
            # generate() prepares masks, positions, cache and logits processors, and hands them to decode.
            steps: Iterator[Step] = self.model.generate(
                **self._inputs(prompts), generation_config=config, custom_generate=decode
            )
        except (ValueError, TypeError) as error:
            raise BadRequestError(f"generation parameters: {error}") from error
        return steps

    def _loop(
        self, input_ids: torch.Tensor, model_kwargs: dict[str, Any], choose: _Chooser, config: Any
    ) -> Iterator[Step]:
        model, pad = self.model, self._pad()
        unfinished = [True] * input_ids.shape[0]
        first = True
        while any(unfinished):
            # Gradients are switched off around each step only: a generator that yields inside no_grad() would leave
            # its caller's thread in that mode.
            with torch.no_grad():
                inputs = model.prepare_inputs_for_generation(
                    input_ids,
                    next_sequence_length=1 if model_kwargs["use_cache"] and not first else None,
                    is_first_iteration=first,
                    **model_kwargs,
                )
                outputs = model(**inputs, return_dict=True)
                model_kwargs = model._update_model_kwargs_for_generation(
                    outputs, model_kwargs, is_encoder_decoder=model.config.is_encoder_decoder
                )
                logits = outputs.logits[:, -1].to(dtype=torch.float32, copy=True)
                del outputs, inputs
                step = self._agree(functools.partial(choose, input_ids, logits, unfinished), unfinished)
                chosen = [pad if token is None else token for token in step.tokens]
                input_ids = torch.cat([input_ids, torch.tensor(chosen, device=input_ids.device)[:, None]], dim=-1)
            unfinished = [open_ and not reason for open_, reason in zip(unfinished, step.finished, strict=True)]
            first = False
            rank.current.step(sum(token is not None for token in step.tokens))
            yield step

    def _agree(self, choose: Callable[[], Step], unfinished: list[bool]) -> Step:
        """Rank 0's step on every rank. One small broadcast carries its tokens, why rows ended, and whether the request
        was cancelled, so that ranks cannot draw different tokens and wait for one another for ever."""
        if self.ranks == 1:
            return _cancelled(unfinished) if rank.current.cancelled else choose()
        rows = len(unfinished)
        step, failure, message = None, None, torch.zeros(1 + 2 * rows, dtype=torch.int64)
        if dist.get_rank() == 0:
            try:
                step = _cancelled(unfinished) if rank.current.cancelled else choose()
                message[1:] = torch.tensor(
                    [-1 if token is None else token for token in step.tokens]
                    + [_REASONS.index(reason) for reason in step.finished]
                )
            except Exception as error:
                failure, message[0] = error, _FAILED
        message = message.to(self.model.device)
        dist.broadcast(message, 0)
        if failure is not None:
            raise failure
        if step is not None:
            return step
        status, *values = message.tolist()
        if status == _FAILED:
            raise WorkerError("rank 0 could not choose the next token; its own error says why")
        tokens = tuple(None if token < 0 else token for token in values[:rows])
        return Step(tokens, tuple(_REASONS[reason] for reason in values[rows:]))

    def _beams(self, prompts: list[list[int]], parameters: GenerationParameters, config: Any) -> Iterator[Step]:
        """Beam search knows its tokens only at the end, so all steps follow it."""
        inputs = self._inputs(prompts)
        stop = _StopBeams(self)
        # Every rank draws for itself here, so they must draw from the same seed.
        seed = torch.tensor([torch.randint(2**62, ()) if parameters.seed is None else parameters.seed])
        if self.ranks > 1:
            seed = seed.to(self.model.device)
            dist.broadcast(seed, 0)
        with torch.random.fork_rng():
            torch.manual_seed(int(seed))
            try:
                found = self.model.generate(**inputs, generation_config=config, stopping_criteria=[stop])
            except (ValueError, TypeError) as error:
                raise BadRequestError(f"generation parameters: {error}") from error
        start = 1 if self.model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        eos = set() if parameters.ignore_eos else set(self._eos())
        rows = [_until(row, eos) for row in found[:, start:].tolist()]
        for index in range(max(len(row) for row in rows)):
            tokens = tuple(row[index] if index < len(row) else None for row in rows)
            rank.current.step(sum(token is not None for token in tokens))
            yield Step(tokens, tuple(_ending(row, index, eos, stop.stopped) for row in rows))


def _sequences_of_tokens(value: Any) -> Iterator[int]:
    """The ids in lists of nothing but ids; a bias stands beside such a list, not in it."""
    for each in value if isinstance(value, list) else ():
        if isinstance(each, list) and all(type(token) is int for token in each):
            yield from each
        else:
            yield from _sequences_of_tokens(each)


class _Chooser:
    """Picks each row's next token from its logits."""

    def __init__(self, processors: Any, parameters: GenerationParameters, eos: frozenset[int]) -> None:
        self._processors, self._sample, self._eos = processors, parameters.do_sample, eos
        self._left = parameters.max_new_tokens
        self._random: torch.Generator | None = None
        self._seed = parameters.seed

    def __call__(self, input_ids: torch.Tensor, logits: torch.Tensor, unfinished: list[bool]) -> Step:
        scores = self._processors(input_ids, logits.clone())
        if self._sample:
            if self._random is None and self._seed is not None:
                self._random = torch.Generator(logits.device).manual_seed(self._seed)
            picked = torch.multinomial(scores.softmax(-1), 1, generator=self._random)[:, 0]
        else:
            picked = scores.argmax(-1)
        log_probs = (logits.gather(1, picked[:, None])[:, 0] - logits.logsumexp(-1)).tolist()
        self._left -= 1
        tokens, reasons, shown = [], [], []
        for token, log_prob, open_ in zip(picked.tolist(), log_probs, unfinished, strict=True):
            reason: FinishReason | None = "eos_token" if token in self._eos else None if self._left else "length"
            tokens.append(token if open_ else None)
            reasons.append(reason if open_ else None)
            shown.append(log_prob if open_ else None)
        return Step(tuple(tokens), tuple(reasons), tuple(shown))


class _StopBeams:
    """Ends a beam search when the request is cancelled, on all ranks at the same step."""

    def __init__(self, engine: TransformersEngine) -> None:
        self._engine, self.stopped = engine, False

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        word = torch.tensor([int(rank.current.cancelled)], device=input_ids.device)
        if self._engine.ranks > 1:
            dist.broadcast(word, 0)
        self.stopped = self.stopped or bool(word.item())
        rank.current.step()
        return torch.full((input_ids.shape[0],), self.stopped, device=input_ids.device)


def _cancelled(unfinished: list[bool]) -> Step:
    nothing = (None,) * len(unfinished)
    return Step(nothing, tuple("cancelled" if open_ else None for open_ in unfinished), nothing)


def _until(tokens: list[int], eos: set[int]) -> list[int]:
    """Up to the first end token, that one included."""
    end = next((index for index, token in enumerate(tokens) if token in eos), len(tokens) - 1)
    return tokens[: end + 1]


def _ending(row: list[int], index: int, eos: set[int], stopped: bool) -> FinishReason | None:
    if index != len(row) - 1:
        return None
    if row[index] in eos:
        return "eos_token"
    return "cancelled" if stopped else "length"
