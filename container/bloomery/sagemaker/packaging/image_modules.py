"""What a handler can import in the container without asking for it: the modules of requirements.txt, and ours.

A test compares the table with what the pinned packages bring.
"""

from __future__ import annotations

OURS = frozenset({"bloomery", "djl_python", "djl_python_engine"})
# fmt: off
MODULES = frozenset({
    "PIL", "accelerate", "aiohappyeyeballs", "aiohttp", "aiosignal", "annotated_doc", "annotated_types", "anyio",
    "attr", "attrs", "awscrt", "boto3", "botocore", "click", "cpuinfo", "dateutil", "deepspeed", "einops", "filelock",
    "frozenlist", "fsspec", "functorch", "google", "h11", "hf_xet", "hjson", "httpcore2", "httpx2", "huggingface_hub",
    "idna", "isympy", "jinja2", "jmespath", "markdown_it", "markupsafe", "mdurl", "mpmath", "msgpack", "multidict",
    "networkx", "ninja", "numpy", "packaging", "prometheus_client", "propcache", "psutil", "pydantic",
    "pydantic_core", "pygments", "regex", "rich", "s3transfer", "safetensors", "sentencepiece", "setuptools",
    "shellingham", "six", "sympy", "tokenizers", "torch", "torchgen", "tqdm", "transformers", "truststore", "typer",
    "typing_extensions", "typing_inspection", "urllib3", "uvloop", "yaml", "yarl",
})
# fmt: on
