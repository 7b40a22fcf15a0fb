"""What ``bloomery serve [DIR|URI]`` is pointed at: the model directories and where their checkpoints lie."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path

from bloomery.errors import ConfigurationError
from bloomery.settings import archive
from bloomery.settings.archive import Unpacked
from bloomery.settings.layers import Found

PROPERTIES = "serving.properties"
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.index.json")
_GGUF = ".gguf"
_NO_GGUF = "GGUF files are llama.cpp's, and are not served here: name the checkpoint that they were made from"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_URI = re.compile(r"[a-z][a-z0-9+.-]*://\S+")


@dataclass(frozen=True)
class Source:
    """One model to be served. ``name`` is None when the checkpoint shall give it."""

    model_dir: Path
    name: str | None = None
    version: str | None = None
    given: dict[str, Found] = field(default_factory=dict)  # settings that the argument itself implies
    is_default: bool = False  # the product's own model directory, without a checkpoint of the user's


@dataclass(frozen=True)
class Home:
    """Where the product's own files lie: in a clone of the repository, or only the installed package."""

    repository: Path | None

    @classmethod
    def find(cls) -> Home:
        """The clone this package runs from, if it is one."""
        root = Path(__file__).resolve().parents[3]
        return cls(root if (root / "code" / "model.py").is_file() else None)

    @property
    def model_dir(self) -> Path:
        """The handler that serves a bare checkpoint: code/ of the clone, else the built-in one."""
        return self.repository / "code" if self.repository else Path(__file__).parent / "builtin"

    @property
    def properties(self) -> Path | None:
        """The serving.properties of the lowest precedence."""
        path = self.repository / PROPERTIES if self.repository else None
        return path if path and path.is_file() else None


def find(argument: str | None, home: Home, unpacked: Unpacked) -> list[Source]:
    """The models that ``argument`` names; archives among them are put into ``unpacked``."""
    if argument is None:
        return [Source(home.model_dir, is_default=True)]
    path = Path(argument).expanduser()
    if path.is_dir():
        return _in_directory(path.resolve(), argument, home, unpacked)
    if archive.is_archive(path):
        return [_archived(path.resolve(), home, unpacked)]
    if path.exists():
        if path.suffix.lower() == _GGUF:
            raise ConfigurationError(f"{argument}: {_NO_GGUF}")
        raise ConfigurationError(
            f"{argument} is a file; name the directory that holds serving.properties, model.py or config.json, or an "
            f"archive of it ({', '.join(archive.SUFFIXES)})"
        )
    if _URI.fullmatch(argument) or (_HUB_ID.fullmatch(argument) and not Path(argument).parent.exists()):
        return [_checkpoint(argument, argument, home)]
    raise ConfigurationError(
        f"{argument}: no such directory (looked in {Path.cwd()}), and not a URI such as s3://bucket/prefix/ or a "
        "hub model's full id such as facebook/opt-125m either"
    )


def _checkpoint(where: str, argument: str, home: Home) -> Source:
    return Source(home.model_dir, given={"option.model_id": Found(where, f"argument {argument}")})


def _in_directory(path: Path, argument: str, home: Home, unpacked: Unpacked) -> list[Source]:
    if path == home.model_dir.resolve():
        return [Source(path, is_default=True)]
    if is_model_dir(path):
        return [Source(path, path.name)]
    if is_checkpoint(path):
        return [_checkpoint(str(path), argument, home)]
    # As DJLServing's model store: a directory that holds only directories and archives serves each of them. SageMaker
    # unpacks an archive with one directory in it ("code", or the model's name) in just this way.
    if children := _children(path):
        return [_child(child, home, unpacked) for child in children]
    if (path / "config.json").is_file():
        raise ConfigurationError(
            f"{argument} has a config.json but no weights beside it ({', '.join(_WEIGHTS[:3])}); "
            "is the checkpoint's download complete?"
        )
    names = sorted(child.name for child in path.iterdir())
    raise ConfigurationError(
        f"{argument} is neither a model directory (serving.properties or model.py) nor a checkpoint "
        f"(config.json with weights); it holds {', '.join(names[:8]) or 'nothing'}{_mistaken(names)}"
    )


def _mistaken(names: list[str]) -> str:
    """What a directory with these files most likely is instead, and what to do."""
    if "adapter_config.json" in names:
        return (
            ": a LoRA adapter, which is no whole model; merge it into its base (peft's merge_and_unload, then "
            "save_pretrained), and name the directory that this makes"
        )
    if any(name.lower().endswith(_GGUF) for name in names):
        return f". {_NO_GGUF}"
    if any(fnmatch(name, pattern) for name in names for pattern in _WEIGHTS):
        return ": weights without a config.json; is the checkpoint's download complete?"
    return ""


def holds_models(path: Path) -> bool:
    """Whether ``path`` is an archive, or a directory with anything to serve in it."""
    if not path.is_dir():
        return archive.is_archive(path)
    return is_model_dir(path) or is_checkpoint(path) or bool(_children(path))


def _children(path: Path) -> list[Path]:
    inside = sorted(child for child in path.iterdir() if not child.name.startswith("."))
    return [child for child in inside if is_model_dir(child) or is_checkpoint(child) or archive.is_archive(child)]


def _child(path: Path, home: Home, unpacked: Unpacked) -> Source:
    if archive.is_archive(path):
        return _archived(path, home, unpacked)
    if is_model_dir(path):
        return Source(path, path.name)
    return _checkpoint(str(path), str(path), home)


def _archived(path: Path, home: Home, unpacked: Unpacked) -> Source:
    """The one model of an archive, at its root or one directory down; the archive gives the name."""
    root = unpacked.unpack(path)
    found = [each for each in (root, *_children(root)) if is_model_dir(each) or is_checkpoint(each)]
    if root in found:
        found = [root]
    if len(found) != 1:
        listing = ", ".join(sorted(child.name for child in root.iterdir())[:8]) or "nothing"
        what = f"{len(found)} models" if found else "no model"
        raise ConfigurationError(
            f"{path} holds {what} ({listing}); an archive is one model: serving.properties, model.py or config.json "
            "with weights lie at its root or in its only directory"
        )
    return replace(_child(found[0], home, unpacked), name=archive.stem(path))


def is_model_dir(path: Path) -> bool:
    """Whether ``path`` says how to serve a model."""
    return path.is_dir() and any((path / name).is_file() for name in (PROPERTIES, "model.py", f"{path.name}.py"))


def is_checkpoint(path: Path) -> bool:
    """Whether ``path`` holds a model's configuration and weights."""
    return (path / "config.json").is_file() and any(next(path.glob(pattern), None) for pattern in _WEIGHTS)


def name_of(where: str) -> str:
    """A model name made from a checkpoint's path, URI or hub id: its last part, fit for a URL's path."""
    path = re.split(r"[?#]", where.partition("://")[2] or where)[0]  # a query may hold a signature
    parts = [part for part in path.split("/") if part]
    return re.sub(r"[^\w.-]+", "-", parts[-1] if parts else "").strip("-.") or "model"


def located(key: str, found: Found, base: Path) -> Found:
    """``option.model_id`` with a path made absolute: a relative one is meant from where it was written."""
    text = found.text
    if key != "option.model_id" or _URI.fullmatch(text):
        return found
    path = base / Path(text).expanduser()
    if path.exists():
        return Found(str(path.resolve()), found.origin)
    # models/x is a hub id by its form; with a directory models/ at hand it is a path that is not there.
    if text.startswith(("/", ".", "~")) or text.count("/") > 1 or ("/" in text and path.parent.is_dir()):
        raise ConfigurationError(f"{found.origin}: option.model_id={text}: there is no {path}")
    return found
