"""SageMaker's security controls: what a model that one does not trust may not bring along.

``SAGEMAKER_SECURITY_CONTROLS`` names the controls, ``SAGEMAKER_UNTRUSTED_CHANNELS`` directories that are searched
besides the model's own. The server looks at what lies on this machine; a rank inherits the variables, and
checkpoints.fetch searches what it has fetched. The engines look once more at what they are about to use: a handler may
load what nobody has searched, and a pickle may have any name.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bloomery.errors import ConfigurationError
from bloomery.settings.engine import BUILT_IN
from bloomery.settings.layers import Layer

REQUIREMENTS = "DISALLOW_REQUIREMENTS_TXT"
PICKLES = "DISALLOW_PICKLE_FILES"
REMOTE_CODE = "DISALLOW_TRUST_REMOTE_CODE"
SCRIPTS = "DISALLOW_CUSTOM_INFERENCE_SCRIPTS"
CHAT_TEMPLATE = "DISALLOW_CHAT_TEMPLATE"
CONTROLS = (REQUIREMENTS, PICKLES, REMOTE_CODE, SCRIPTS, CHAT_TEMPLATE)

_VARIABLE = "SAGEMAKER_SECURITY_CONTROLS"
_PICKLE = re.compile(r".*\.(bin|pt|pth|ckpt|pkl|pickle|joblib)", re.IGNORECASE)
_TEMPLATES = ("chat_template.jinja", "chat_template.json")
# Keys with which a model's own serving.properties would have code of its choice run.
_RUN_CODE = ("option.pythonExecutable", "option.env")


@dataclass(frozen=True)
class Security:
    """The controls in force, and the directories that they look into besides the model's own."""

    controls: frozenset[str] = frozenset()
    untrusted: tuple[Path, ...] = ()

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Security:
        """As SageMaker's platform sets them. An unknown control is refused: nobody would be protected by it."""
        mode = environ.get("SAGEMAKER_SECURE_MODE", "").strip().lower()
        names = [name.strip() for name in environ.get(_VARIABLE, "").split(",") if name.strip()]
        if mode == "false":
            return cls()
        if mode == "true" and not names:
            raise ConfigurationError(
                f"environment SAGEMAKER_SECURE_MODE=true: {_VARIABLE} says what it forbids, and it is not set; name "
                f"some of {', '.join(CONTROLS)}"
            )
        if unknown := sorted(set(names) - set(CONTROLS)):
            raise ConfigurationError(
                f"environment {_VARIABLE}: there is no control {unknown[0]!r}; those there are: {', '.join(CONTROLS)}"
            )
        channels = [Path(part.strip()) for part in environ.get("SAGEMAKER_UNTRUSTED_CHANNELS", "").split(",")]
        untrusted = tuple(path for path in channels if path != Path())
        if names and (missing := [path for path in untrusted if not path.is_dir()]):
            raise ConfigurationError(f"environment SAGEMAKER_UNTRUSTED_CHANNELS: {missing[0]} is not a directory")
        return cls(frozenset(names), untrusted)

    def enforce(self, model_dir: Path, entry_point: str, is_ours: bool, found: Layer, stated: Layer) -> None:
        """Refuse what is forbidden about one model.

        ``is_ours`` says that the model directory is the product's own; ``stated`` is its own serving.properties.
        """
        if not self.controls:
            return
        if not is_ours:
            self._check_code(model_dir, entry_point, stated)
        variables = found.get("option.env")
        if variables and "SAGEMAKER_" in variables.text:
            raise ConfigurationError(
                f"{variables.origin}: option.env changes variables of SageMaker's, while {_VARIABLE} is in force; "
                "remove them"
            )
        remote = found.get("option.trust_remote_code")
        if REMOTE_CODE in self.controls and remote and remote.text.strip().lower() == "true":
            raise _refusal(REMOTE_CODE, f"{remote.origin}: option.trust_remote_code=true", "remove it")
        template = found.get("option.chat_template")
        if CHAT_TEMPLATE in self.controls and template:
            raise _refusal(CHAT_TEMPLATE, f"{template.origin}: option.chat_template", "remove it")
        checkpoint = found.get("option.model_id")
        for directory in sorted({model_dir, *self.untrusted, *([Path(checkpoint.text)] if checkpoint else [])}):
            self.search(directory)

    def refuse(self, control: str, what: str, remedy: str) -> None:
        """Refuse ``what`` if ``control`` is in force: the last word, of whoever is about to use it."""
        if control in self.controls:
            raise _refusal(control, what, remedy)

    def search(self, directory: Path) -> None:
        """Refuse forbidden files below ``directory``, if it is there."""
        if not self.controls & {PICKLES, CHAT_TEMPLATE}:
            return
        for path in _files(directory):
            if PICKLES in self.controls and _PICKLE.fullmatch(path.name):
                raise _refusal(PICKLES, f"{path}, a pickle by its name", "use safetensors")
            if CHAT_TEMPLATE in self.controls and _has_template(path):
                raise _refusal(CHAT_TEMPLATE, f"{path}, which brings a chat template", "remove the template")

    def _check_code(self, model_dir: Path, entry_point: str, stated: Layer) -> None:
        if REQUIREMENTS in self.controls:
            for name in ("requirements.txt", "requirements"):
                if (model_dir / name).exists():
                    raise _refusal(REQUIREMENTS, str(model_dir / name), "remove it")
        if SCRIPTS in self.controls:
            if entry_point not in BUILT_IN:
                what = f"{model_dir / entry_point}" if entry_point.endswith(".py") else f"the handler {entry_point}"
                raise _refusal(SCRIPTS, what, f"remove it, and name {' or '.join(BUILT_IN)} in option.entryPoint")
            for key in _RUN_CODE:
                if key in stated:
                    raise _refusal(SCRIPTS, f"{stated[key].origin}: {key}", "remove it")


def _files(directory: Path) -> Iterator[Path]:
    """Every file below, those behind links to directories too."""
    seen: set[str] = set()
    for root, directories, names in os.walk(directory, followlinks=True):
        real = os.path.realpath(root)
        if real in seen:
            directories.clear()
            continue
        seen.add(real)
        yield from (Path(root) / name for name in sorted(names))


def _has_template(path: Path) -> bool:
    if path.name in _TEMPLATES:
        return True
    if path.name != "tokenizer_config.json":
        return False
    try:
        return "chat_template" in json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be searched for a chat template ({CHAT_TEMPLATE}): {error}") from error


def _refusal(control: str, what: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(f"{what} is forbidden by {control} (environment {_VARIABLE}); {remedy}")
