"""Models split over ranks by DeepSpeed: the same answers, in step, and refusals in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tests.support.rank_pair import run_pair
from tests.support.tiny_models import randomise, tiny_encoder, tiny_model, tiny_tokenizer

from bloomery.engines import deepspeed, precision
from bloomery.engines.base import GenerationParameters
from bloomery.errors import ConfigurationError, UnsupportedModelError

PROMPTS = [[5, 6, 7], [11, 12, 13, 14, 15, 16]]
NEW = 10

# Loads every model of MODELS one after the other in the same two processes, and reports what each rank computed.
COMPARE = """
import json, torch
from bloomery.engines import deepspeed
from bloomery.engines.base import GenerationParameters
torch.set_num_threads(1)
found = {}
for name, (path, options) in MODELS.items():
    engine = deepspeed.load(path, allreduce="gloo", **options)
    if engine.model.can_generate():
        steps = engine.generate(PROMPTS, GenerationParameters(max_new_tokens=NEW, ignore_eos=True))
        found[name] = [list(row) for row in zip(*(step.tokens for step in steps))]
    else:
        with torch.no_grad():
            found[name] = engine.model(torch.tensor(PROMPTS[1:])).logits.tolist()
print(json.dumps(found))
"""


def compare(models: dict[str, tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    script = COMPARE.replace("MODELS", repr(models)).replace("PROMPTS", repr(PROMPTS)).replace("NEW", repr(NEW))
    return run_pair(script)


def greedy(path: Path, kind: Any) -> list[list[int]]:
    model = kind.from_pretrained(path)
    model.generation_config.eos_token_id = None
    width = max(map(len, PROMPTS))
    ids = torch.tensor([[3] * (width - len(prompt)) + prompt for prompt in PROMPTS])
    found = model.generate(ids, attention_mask=(ids != 3).long(), max_new_tokens=NEW, do_sample=False, pad_token_id=3)
    return found[:, 1 if model.config.is_encoder_decoder else width :].tolist()


def modern(family: str, path: Path, **config: Any) -> Path:
    made = transformers.AutoConfig.for_model(
        family, vocab_size=320, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=3, **config,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(made)
    randomise(model)
    model.save_pretrained(path)
    return path


def encoder_decoder(path: Path) -> Path:
    config = transformers.T5Config(
        vocab_size=320, d_model=64, d_ff=128, d_kv=16, num_layers=2, num_heads=4,
        decoder_start_token_id=0, pad_token_id=3,
    )  # fmt: skip
    model = transformers.T5ForConditionalGeneration(config)
    randomise(model)
    model.save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


def test_two_ranks_answer_as_one_process_does(tmp_path: Path) -> None:
    causal = {name: tiny_model(name, tmp_path / name) for name in ("bloom", "opt", "llama")}
    # 176 = 2 grains of 64 and a rest: the ranks' parts of the MLP differ in size.
    causal["uneven"] = tiny_model("llama", tmp_path / "uneven", intermediate_size=176)
    causal["untied"] = tiny_model("opt", tmp_path / "untied", tie_word_embeddings=False)
    causal["a family without a table"] = modern("stablelm", tmp_path / "stablelm")
    bert, t5 = tiny_encoder("MaskedLM", tmp_path / "bert"), encoder_decoder(tmp_path / "t5")
    policy = {"BloomBlock": ("self_attention.dense", "mlp.dense_4h_to_h")}
    models: dict[str, tuple[str, dict[str, Any]]] = {name: (str(path), {}) for name, path in causal.items()}
    models |= {"bert": (str(bert), {}), "t5": (str(t5), {})}
    models["policy"] = (str(causal["bloom"]), {"injection_policy": policy})

    ranks = compare(models)

    assert ranks[0] == ranks[1]
    found = ranks[0]
    for name, path in causal.items():
        assert found[name] == greedy(path, transformers.AutoModelForCausalLM), name
    assert found["policy"] == found["bloom"]
    assert found["t5"] == greedy(t5, transformers.AutoModelForSeq2SeqLM)
    with torch.no_grad():
        expected = transformers.BertForMaskedLM.from_pretrained(bert)(torch.tensor(PROMPTS[1:])).logits
    torch.testing.assert_close(torch.tensor(found["bert"]), expected, atol=1e-4, rtol=0)


IN_STEP = """
import json, torch
from bloomery.engines import deepspeed
from bloomery.engines.base import GenerationParameters
from bloomery.errors import BadRequestError, BloomeryError
from bloomery.processes import rank
torch.set_num_threads(1)
engine = deepspeed.load(PATH, allreduce="gloo", max_tokens=64)
me, report = rank.current.index, {}
sampling = dict(max_new_tokens=20, do_sample=True, temperature=3.0, ignore_eos=True)
torch.manual_seed(me)  # the ranks' own random states disagree

def ask(**parameters):
    rank.current.begin("request")
    steps = []
    try:
        for step in engine.generate([[5, 6, 7], [11, 12]], GenerationParameters(**parameters)):
            steps.append(step)
            if parameters.get("extra") is None and len(steps) == CANCEL_AFTER and me == 0:
                rank.current.cancel("request")
    finally:
        rank.current.end()
    return [[list(step.tokens), list(step.finished)] for step in steps]

CANCEL_AFTER = 3
report["cancelled"] = ask(**sampling)
CANCEL_AFTER = 0
report["after"] = ask(**sampling)
report["seeded"] = ask(**sampling, seed=4)
closed = engine.generate([[5]], GenerationParameters(**sampling))
report["closed"] = [next(closed).tokens[0] for _ in range(4)]
closed.close()
report["beams"] = ask(max_new_tokens=5, num_beams=2, do_sample=True, ignore_eos=True)
CANCEL_AFTER = 0
try:
    engine.generate([[5] * 60], GenerationParameters(max_new_tokens=10))
except BadRequestError as error:
    report["refused"] = str(error)
choose = torch.multinomial
def broken(*_, **__): raise RuntimeError("no dice")
if me == 0:
    torch.multinomial = broken
try:
    ask(**sampling)
except (RuntimeError, BloomeryError) as error:
    report["failed"] = str(error)
torch.multinomial = choose
report["last"] = ask(**sampling)
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def in_step(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    path = tiny_model("bloom", tmp_path_factory.mktemp("bloom"))
    return run_pair(IN_STEP.replace("PATH", repr(str(path))))


def test_a_cancellation_heard_by_rank_0_ends_both_ranks_at_the_same_step(in_step) -> None:
    zero, one = (report["cancelled"] for report in in_step)

    assert zero == one
    assert len(zero) == 4
    assert zero[-1] == [[None, None], ["cancelled", "cancelled"]]


@pytest.mark.parametrize("request_name", ["after", "seeded", "closed", "beams", "last"])
def test_ranks_draw_the_same_tokens_whatever_was_aborted_before(in_step, request_name: str) -> None:
    assert in_step[0][request_name] == in_step[1][request_name]


def test_a_sample_after_a_cancelled_one_is_complete(in_step) -> None:
    assert len(in_step[0]["after"]) == 20


def test_a_request_that_does_not_fit_is_refused_by_every_rank_alike(in_step) -> None:
    assert in_step[0]["refused"] == in_step[1]["refused"]
    assert "60 prompt tokens + 10 new tokens exceed this model's limit of 64" in in_step[0]["refused"]


def test_an_error_while_rank_0_chooses_reaches_the_other_rank(in_step) -> None:
    assert in_step[0]["failed"] == "no dice"
    assert "rank 0 could not choose the next token" in in_step[1]["failed"]


@pytest.fixture
def two_ranks_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this process were one of two; refusals come before the ranks meet, so the other one is not needed."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")


def test_gpt2_over_two_ranks_without_injection_is_refused(two_ranks_expected, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"gpt2 over 2 ranks.*kernel_inject=True"):
        deepspeed.load(tiny_model("gpt2", tmp_path), kernel_inject=False)


def test_heads_that_the_ranks_cannot_share_are_refused(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")

    with pytest.raises(UnsupportedModelError, match="tensor_parallel=3 does not divide the 4 attention heads"):
        deepspeed.load(tiny_model("bloom", tmp_path))


def test_projections_joined_as_no_table_knows_are_refused(two_ranks_expected, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(deepspeed, "start_ranks", lambda *_: None)  # the other rank is not there to be met

    with pytest.raises(UnsupportedModelError, match=r"phi3 keeps several projections in one weight.*qkv_proj"):
        deepspeed.load(modern("phi3", tmp_path))


def test_experts_that_are_joined_while_loading_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"mixtral are joined anew.*Python engine"):
        deepspeed.load(modern("mixtral", tmp_path, num_local_experts=2))


def test_injection_into_a_post_norm_opt_is_refused(tmp_path: Path) -> None:
    path = tiny_model("opt", tmp_path, do_layer_norm_before=False)

    with pytest.raises(UnsupportedModelError, match="do_layer_norm_before"):
        deepspeed.load(path, kernel_inject=True)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_injection_into_a_family_it_does_not_know_is_refused(tmp_path: Path, family: str) -> None:
    with pytest.raises(UnsupportedModelError, match=family):
        deepspeed.load(tiny_model(family, tmp_path), kernel_inject=True)


def test_beams_with_injected_kernels_are_refused(tmp_path: Path) -> None:
    engine = deepspeed.load(tiny_model("bloom", tmp_path), kernel_inject=True)

    with pytest.raises(UnsupportedModelError, match=r"num_beams=2.*kernel_inject=False"):
        engine.generate(PROMPTS, GenerationParameters(num_beams=2))


def test_int8_is_refused_where_injected_layers_would_stay_fp16() -> None:
    int8 = precision.Precision(torch.float16, int8=True)
    with pytest.raises(UnsupportedModelError, match=r"dtype=int8 with kernel_inject=True.*kernel_inject=False"):
        deepspeed._check_injected_precision(int8, "cuda")  # no GPU here: the decision alone
    deepspeed._check_injected_precision(int8, "cpu")
    deepspeed._check_injected_precision(precision.Precision(torch.float16), "cuda")


def test_automatic_choice_does_not_inject_what_autotp_can_split(tmp_path: Path) -> None:
    engine = deepspeed.load(tiny_model("opt", tmp_path, do_layer_norm_before=False), kernel_inject="auto")

    assert type(engine.model.model.decoder.layers[0]).__name__ == "OPTDecoderLayer"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tensor_parallel": 2}, r"tensor_parallel=2, but WORLD_SIZE says 1"),
        ({"dtype": "fp8"}, "dtype='fp8'"),
        ({"kernel_inject": "maybe"}, "kernel_inject='maybe'"),
        ({"kernel_inject": True, "injection_policy": {"BloomBlock": "dense"}}, "exclude each other"),
        ({"injection_policy": {"Block": "dense"}}, r"names a block 'Block'.*BloomBlock"),
    ],
)
def test_a_wrong_option_is_refused_with_its_value(tmp_path: Path, options, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        deepspeed.load(tiny_model("bloom", tmp_path), **options)


def test_one_rank_needs_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    engine = deepspeed.load(path := tiny_model("bloom", tmp_path))

    steps = engine.generate(PROMPTS, GenerationParameters(max_new_tokens=NEW, ignore_eos=True))

    rows = [list(row) for row in zip(*(step.tokens for step in steps), strict=True)]
    assert rows == greedy(path, transformers.AutoModelForCausalLM)
