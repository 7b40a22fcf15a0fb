"""Which program stands for a container image on this machine.

A rule given with ``--image REGEX=COMMAND`` comes first, in the order given; then this project's own server stands for
its own images and for the public images whose handlers it runs; any other image needs docker.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bloomery.errors import ConfigurationError, DeploymentFailure
from bloomery.sagemaker.emulator.api import words
from bloomery.sagemaker.emulator.deployment import ImageRule

MODEL_DIRECTORY = "/opt/ml/model"
_DOCKER = "docker:"
_OURS = re.compile(r"(?:^|/)(?:bloomery[\w.-]*|djl-inference|djl-serving)(?:[:@][^/]*)?$")
_PLACEHOLDER = re.compile(r"\{(model_dir|port|image)\}")


@dataclass(frozen=True)
class Program:
    """A process of this machine. The command and the variables may hold {model_dir}, {port} and {image}."""

    command: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=dict)  # as an image's ENV: the model's own come after them

    def filled(self, model_dir: Path | str, port: int, image: str) -> tuple[list[str], dict[str, str]]:
        """Command and variables to start it with.

        As docker does, ``serve`` is added to the command, unless placeholders in it say how it is to be called.
        """
        values = {"model_dir": str(model_dir), "port": str(port), "image": image}

        def fill(text: str) -> str:
            return _PLACEHOLDER.sub(lambda found: values[found[1]], text)

        command = [fill(word) for word in self.command]
        if command == list(self.command):
            command.append("serve")
        return command, {name: fill(value) for name, value in self.variables.items()}


@dataclass(frozen=True)
class DockerImage:
    """``docker run`` of an image that the daemon has, or can pull."""

    docker: str  # path of the command
    image: str


class Images:
    """Finds the program for an image."""

    def __init__(self, rules: Iterable[ImageRule] = ()) -> None:
        self._rules = [(_compiled(rule), _command(rule)) for rule in rules]

    def find(self, image: str) -> Program | DockerImage:
        """What to start. Raises DeploymentFailure when nothing here can stand for ``image``; may take seconds."""
        for pattern, command in self._rules:
            if pattern.search(image):
                if command.startswith(_DOCKER):
                    return _docker(command.removeprefix(_DOCKER).strip() or image)
                return Program(tuple(shlex.split(command)))
        return own_server() if _OURS.search(image) else _docker(image)


def own_server() -> Program:
    """``bloomery serve`` with this interpreter, set up as its image is: /opt/ml/model is its model store."""
    package = Path(__file__).parents[4]
    variables = {"PYTHONPATH": str(package), "SERVING_MODEL_STORE": "{model_dir}"}
    return Program((sys.executable, "-m", "bloomery"), variables)


def _docker(image: str) -> DockerImage:
    docker = shutil.which("docker")
    reason = "there is no docker command"
    if docker:
        command = [docker, "version", "--format", "{{.Server.Version}}"]
        try:
            asked = subprocess.run(command, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = f"docker does not answer ({error})"
        else:
            if asked.returncode == 0:
                return DockerImage(docker, image)
            reason = f"docker has no daemon to talk to ({asked.stderr.strip()[-200:]})"
    raise DeploymentFailure(words.NO_PROGRAM.format(image=image, reason=reason))


def _compiled(rule: ImageRule) -> re.Pattern[str]:
    try:
        return re.compile(rule.pattern)
    except re.error as error:
        raise ConfigurationError(
            f"--image {rule.pattern}={rule.command}: {rule.pattern!r} is no regular expression ({error})"
        ) from error


def _command(rule: ImageRule) -> str:
    try:
        empty = not shlex.split(rule.command)
    except ValueError as error:
        raise ConfigurationError(f"--image {rule.pattern}={rule.command}: the command has {error}") from error
    if empty:
        raise ConfigurationError(f"--image {rule.pattern}=: name the command to run, or docker:IMAGE")
    return rule.command
