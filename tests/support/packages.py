"""Packages that are made at test time, so that installing them needs no network."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path


def wheel(directory: Path, name: str, version: str, requires: str = "") -> Path:
    """A wheel of one module that knows its ``VERSION``."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return path


def source_distribution(directory: Path, name: str, version: str, setup: str = "") -> Path:
    """A source distribution of one module; ``setup`` is code that runs while it is built."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}-{version}.tar.gz"
    files = {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "setup.py": f"{setup}\nfrom setuptools import setup\n"
        f"setup(name={name!r}, version={version!r}, py_modules=[{name!r}])\n",
        f"{name}.py": f"VERSION = {version!r}\n",
    }
    with tarfile.open(path, "w:gz") as archive:
        for file, text in files.items():
            member = tarfile.TarInfo(f"{name}-{version}/{file}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return path
