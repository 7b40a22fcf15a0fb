"""Let the SageMaker Python SDK (v2, v3) find STS where everything else is: at AWS_ENDPOINT_URL.

The SDKs give botocore STS's public address in code (``sts_regional_endpoint``), which no variable overrides, so
``get_execution_role()`` and ``default_bucket()`` leave the emulator. ``bloomery sagemaker-local env --sdk`` puts this
directory on PYTHONPATH; Python then runs this file in every process that starts. It waits until botocore is imported,
and touches nothing but the address of STS. Standard library only: the notebook's environment need not hold bloomery.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit


def sts_url() -> str | None:
    """Where the user wants STS to be."""
    return os.environ.get("AWS_ENDPOINT_URL_STS") or os.environ.get("AWS_ENDPOINT_URL")


def redirect(botocore_client: Any) -> None:
    """Make ``botocore.client`` prefer the variable to an address of Amazon's that was given in code."""
    create_client = botocore_client.ClientCreator.create_client

    def create(self: Any, service_name: str, *arguments: Any, **named: Any) -> Any:
        host = urlsplit(named.get("endpoint_url") or "").hostname or ""
        if service_name == "sts" and ".amazonaws.com" in host and sts_url():
            named["endpoint_url"] = sts_url()
        return create_client(self, service_name, *arguments, **named)

    botocore_client.ClientCreator.create_client = create


class _Redirecting(Loader):
    """Runs a module as its own loader does, then redirects."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        redirect(module)


class _Finder(MetaPathFinder):
    """Sees botocore.client being imported, once."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != "botocore.client":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Redirecting(spec.loader)
        return spec


def _run_the_next() -> None:
    """Another sitecustomize, which this one hides, still has its turn."""
    here = os.path.dirname(os.path.abspath(__file__))
    elsewhere = [path for path in sys.path if os.path.abspath(path or ".") != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", elsewhere)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


sys.meta_path.insert(0, _Finder())
_run_the_next()
