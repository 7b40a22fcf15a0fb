"""Run inside an image: what it consists of, one line each: name, version, licence. Standard library only."""

import re
import subprocess
from email.message import Message
from importlib.metadata import distributions
from pathlib import Path


def of_metadata(metadata: Message) -> str:
    """A Python package's licence by its own account."""
    classifiers = [line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier", []) if line[:7] == "License"]
    stated = metadata.get("License-Expression") or ", ".join(classifiers) or metadata.get("License") or "not stated"
    return stated.strip().splitlines()[0]


def of_debian(package: str) -> str:
    """A Debian package's licences, where its copyright file is written for programs."""
    path = Path("/usr/share/doc", package, "copyright")
    text = path.read_text(errors="replace") if path.exists() else ""
    names = sorted(set(re.findall(r"(?m)^License: *(\S.*)$", text)))
    return ", ".join(names) or (f"see {path}" if text else "not stated")


for found in sorted(distributions(), key=lambda each: each.metadata["Name"].lower()):
    print("python", found.metadata["Name"], found.version, of_metadata(found.metadata), sep="\t")
listing = subprocess.run(
    ["dpkg-query", "-W", "-f", "${Package} ${Version}\n"], capture_output=True, text=True, check=True
)
for line in listing.stdout.splitlines():
    name, version = line.split()
    print("debian", name, version, of_debian(name), sep="\t")
