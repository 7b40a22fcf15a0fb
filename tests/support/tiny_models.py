"""Tiny random checkpoints of every family, made at test time: ``tiny_model("bloom", tmp_path / "bloom")``.

Weights and biases are large and random on purpose: with the usual small initialisation a wrong bias, mask or shard
hardly moves the logits, and a broken model passes a parity test.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

VOCABULARY = 320
HIDDEN, HEADS, KEY_VALUE_HEADS, LAYERS, INNER, POSITIONS = 64, 4, 2, 2, 128, 256
SPECIAL_TOKENS = ["<unk>", "<s>", "</s>", "<pad>"]
CORPUS = [
    "To be, or not to be, that is the question: whether 'tis nobler in the mind to suffer",
    "the slings and arrows of outrageous fortune, or to take arms against a sea of troubles",
    "And by opposing end them. Shall I compare thee to a summer's day? Thou art more lovely.",
]

_IDS: dict[str, Any] = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
_GPT: dict[str, Any] = {"n_embd": HIDDEN, "n_head": HEADS, "n_layer": LAYERS, "n_positions": POSITIONS}
_MODERN: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": KEY_VALUE_HEADS,
    "max_position_embeddings": POSITIONS,
}
_FAMILIES: dict[str, dict[str, Any]] = {
    "bloom": {"hidden_size": HIDDEN, "n_head": HEADS, "n_layer": LAYERS},
    "opt": {
        "hidden_size": HIDDEN,
        "word_embed_proj_dim": HIDDEN,
        "ffn_dim": INNER,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "max_position_embeddings": POSITIONS,
    },
    "gpt2": _GPT,
    "gpt_neo": {
        "hidden_size": HIDDEN,
        "num_heads": HEADS,
        "num_layers": LAYERS,
        "max_position_embeddings": POSITIONS,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 8,
    },
    "gptj": {**_GPT, "rotary_dim": 8},
    "gpt_neox": {
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "max_position_embeddings": POSITIONS,
        "rotary_pct": 0.5,
    },
    "llama": _MODERN,
    "mistral": _MODERN,
    "qwen2": _MODERN,
    "qwen3": {**_MODERN, "head_dim": HIDDEN // HEADS},
}


def tiny_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """A byte-level BPE of ``VOCABULARY`` tokens; characters outside the corpus take several tokens each."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def tiny_config(family: str, **config: Any) -> Any:
    """The family's configuration with ``config`` on top."""
    return transformers.AutoConfig.for_model(family, **{**_IDS, **_FAMILIES[family], **config})


def tiny_model(family: str, directory: Path, **config: Any) -> Path:
    """Write a checkpoint of ``family`` (safetensors, config, tokenizer) into ``directory`` and return it."""
    model = transformers.AutoModelForCausalLM.from_config(tiny_config(family, **config), dtype=torch.float32)
    return _saved(model, tiny_tokenizer(), directory)


# The special tokens around a text or a pair of texts, as BERT has them; the classification token comes first.
_ENCODER_TOKENS = ["[CLS]", "[SEP]", "[MASK]"]
_TINY_ENCODER: dict[str, Any] = {
    "vocab_size": VOCABULARY + len(_ENCODER_TOKENS),
    "pad_token_id": 3,
    "hidden_size": HIDDEN,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "intermediate_size": INNER,
    "max_position_embeddings": POSITIONS,
}
_TINY_SEQ2SEQ: dict[str, Any] = {
    **_IDS,
    "d_model": HIDDEN,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS,
    "encoder_ffn_dim": INNER,
    "decoder_ffn_dim": INNER,
    "max_position_embeddings": POSITIONS,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
_T5: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": HIDDEN,
    "d_kv": HIDDEN // HEADS,
    "d_ff": INNER,
    "num_heads": HEADS,
    "num_layers": LAYERS,
    "pad_token_id": 3,
    "eos_token_id": 2,
    "decoder_start_token_id": 3,
}
_SEQ2SEQ = {"t5": _T5, "bart": _TINY_SEQ2SEQ, "marian": _TINY_SEQ2SEQ}


def tiny_encoder_tokenizer() -> transformers.PreTrainedTokenizerFast:
    """``tiny_tokenizer`` with BERT's frame: [CLS] text [SEP], and [CLS] text [SEP] other [SEP]."""
    plain = tiny_tokenizer()
    plain.add_special_tokens({"cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"})
    ids = {token: plain.convert_tokens_to_ids(token) for token in _ENCODER_TOKENS}
    plain.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain.backend_tokenizer,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        unk_token="<unk>",
        eos_token="</s>",
        pad_token="<pad>",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        clean_up_tokenization_spaces=False,
    )


def tiny_encoder(head: str, directory: Path, family: str = "bert", **config: Any) -> Path:
    """Write an encoder with a head, such as ``SequenceClassification``, and return its directory."""
    settings = transformers.AutoConfig.for_model(family, **{**_TINY_ENCODER, **config})
    model = getattr(transformers, f"AutoModelFor{head}").from_config(settings, dtype=torch.float32)
    return _saved(model, tiny_encoder_tokenizer(), directory)


def tiny_seq2seq(family: str, directory: Path, **config: Any) -> Path:
    """Write a checkpoint of an encoder-decoder (t5, bart, marian) and return its directory."""
    settings = transformers.AutoConfig.for_model(family, **{**_SEQ2SEQ[family], **config})
    model = transformers.AutoModelForSeq2SeqLM.from_config(settings, dtype=torch.float32)
    return _saved(model, tiny_tokenizer(), directory)


def _saved(model: Any, tokenizer: Any, directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    randomise(model)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def randomise(model: Any, seed: int = 7, scale: float = 0.25) -> None:
    """Fill every parameter with large random numbers (norm weights around 1), the same for the same seed."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=random) * scale)
            if parameter.dim() == 1 and name.endswith("weight"):
                parameter.add_(1.0)
