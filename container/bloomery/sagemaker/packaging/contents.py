"""Files that get into a model archive by accident: weights, and secrets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from bloomery.sagemaker.finding import Finding
from bloomery.sagemaker.packaging.members import Member

LARGEST = 50 * 10**6  # bytes of a file that can be code
_WEIGHTS = re.compile(r".+\.(safetensors|bin|pt|pth|ckpt|gguf|ggml|onnx)", re.IGNORECASE)
_SECRET_FILES = re.compile(
    r"\.env(\.(?!example$|sample$|template$).+)?|id_(rsa|dsa|ecdsa|ed25519)|\.netrc|\.git-credentials|\.pypirc|\.npmrc"
    r"|credentials|\.htpasswd|.+\.(p12|pfx|jks|keystore|kdbx)",
    re.IGNORECASE,
)
_SECRETS = (
    # AWS's documentation uses keys that end in EXAMPLE.
    ("an AWS access key", re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{9}(?!EXAMPLE)[A-Z0-9]{7}\b")),
    ("an AWS secret key", re.compile(r"(?i)aws_?secret_?(?:access_?)?key['\"]?\s*[=:]\s*['\"]?[A-Za-z0-9/+]{40}\b")),
    ("a Hugging Face token", re.compile(r"\bhf_[A-Za-z0-9]{30,}\b")),
    ("a GitHub token", re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{50,})\b")),
    # With a digit and a capital: names in style sheets begin like this, too.
    ("an API key", re.compile(r"\bsk-(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{32,}")),
    ("a private key", re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----")),
)
_SEARCHED = 5 * 10**6  # bytes; a longer text is data
_KEPT = 4  # characters of a secret that are shown


def weights(members: Iterable[Member]) -> Iterator[Finding]:
    """Files that are a checkpoint's by their names, or too large for code."""
    for member in members:
        leaf = member.name.rpartition("/")[2]
        if _WEIGHTS.fullmatch(leaf):
            what = f"weights, by its name ({megabytes(member.size)})"
        elif member.size > LARGEST:
            what = f"{megabytes(member.size)}, more than code ever has"
        else:
            continue
        yield Finding(
            "error",
            f"{what}: SageMaker would copy and unpack it before the container starts; bring the checkpoint to S3 "
            "(bloomery upload DIR s3://bucket/prefix/) and name it in serving.properties "
            "(option.model_id=s3://bucket/prefix/), or as the model's ModelDataSource; leave the file out with "
            "--exclude, or keep it with --allow-large",
            member.name,
        )


def secrets(members: Iterable[Member]) -> Iterator[Finding]:
    """Files that hold secrets by their names, and secrets in texts. What is shown of one does not give it away."""
    for member in members:
        leaf = member.name.rpartition("/")[2]
        if _SECRET_FILES.fullmatch(leaf):
            yield Finding("error", f"it holds secrets, by its name; {_REMEDY}", member.name)
        elif member.size <= _SEARCHED:
            yield from _in_text(member)


_REMEDY = (
    "whoever may read the archive could use it: leave it out (--exclude), and give the container a role, or variables "
    "of the model (Environment)"
)


def _in_text(member: Member) -> Iterator[Finding]:
    data = member.path.read_bytes()
    if b"\0" in data[:8192]:
        return
    text = data.decode("utf-8", "replace")
    for what, pattern in _SECRETS:
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            shown = f" ({match.group()[:_KEPT]}…)" if "private" not in what and "secret" not in what else ""
            yield Finding("error", f"there is {what}{shown} in it; {_REMEDY}", member.name, line)


def megabytes(size: int) -> str:
    """A number of bytes, for people."""
    return f"{size / 1e6:,.1f} MB" if size >= 100_000 else f"{size} bytes"
