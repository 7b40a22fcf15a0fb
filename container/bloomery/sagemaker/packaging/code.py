"""A model's Python code, read and never run: does it parse, has it a handler, will its imports be found."""

from __future__ import annotations

import ast
import importlib.metadata
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache

from bloomery.sagemaker.finding import Finding
from bloomery.sagemaker.packaging.image_modules import MODULES, OURS
from bloomery.sagemaker.packaging.members import Member
from bloomery.sagemaker.packaging.requirements import Requirements, normalised
from bloomery.settings.engine import BUILT_IN

_SAGEMAKERS = ("model_fn", "predict_fn", "input_fn", "output_fn")
_THERE = MODULES | OURS | set(sys.stdlib_module_names)
# Packages whose module has another name, as far as people use them with models.
_MODULE_OF = {
    "scikit-learn": "sklearn",
    "opencv-python": "cv2",
    "opencv-python-headless": "cv2",
    "beautifulsoup4": "bs4",
    "faiss-cpu": "faiss",
    "faiss-gpu": "faiss",
    "pymupdf": "fitz",
    "python-dotenv": "dotenv",
    "scikit-image": "skimage",
    "pytorch-lightning": "pytorch_lightning",
    "flash-attn": "flash_attn",
    "openai-whisper": "whisper",
    "grpcio": "grpc",
}


@dataclass(frozen=True)
class Import:
    """One import statement. ``module``: dotted; ``level``: leading dots of a relative one; ``names``: what a
    ``from`` takes; ``optional``: the code goes on without it."""

    module: str
    level: int
    names: tuple[str, ...]
    line: int
    optional: bool


@dataclass
class CodeCheck:
    """Follows the imports of an entry point through the model's own files. ``root``: the model directory's path in
    the archive, "" or with a slash at its end."""

    members: Mapping[str, Member]
    root: str
    requirements: Requirements
    findings: list[Finding] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def run(self, entry_point: str, handler: str) -> list[Finding]:
        """What is to be said about ``entry_point`` (a file, or a module) and all that it imports of the model's."""
        file = entry_point if entry_point.endswith(".py") else self._file_of(entry_point)
        if file is None:
            if entry_point not in BUILT_IN and entry_point.partition(".")[0] not in _THERE:
                self._missing(self.root + "serving.properties", Import(entry_point, 0, (), 0, False))
            return self.findings
        tree = self._module(self.root + file)
        if tree is not None and not _has(tree, handler):
            functions = [each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
            self.findings.append(
                Finding(
                    "error",
                    f"it has no function {handler!r}, which the server calls for every request; its functions are: "
                    f"{', '.join(functions) or 'none'}. Write def {handler}(inputs), or name another one with "
                    "option.handler in serving.properties",
                    self.root + file,
                )
            )
        return self.findings

    def _module(self, name: str) -> ast.Module | None:
        """Parse one file, and follow its imports; None when it does not parse."""
        self._seen.add(name)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of escapes in strings: not ours to tell
                tree = ast.parse(self.members[name].path.read_bytes())
        except SyntaxError as error:
            self.findings.append(Finding("error", f"it is no valid Python: {error.msg}", name, error.lineno))
            return None
        except ValueError as error:  # NUL bytes
            self.findings.append(Finding("error", f"it is no valid Python: {error}", name))
            return None
        for each in _imports(tree, False):
            self._follow(name, each)
        return tree

    def _follow(self, importer: str, each: Import) -> None:
        base = ""
        if each.level:
            parts = importer.removeprefix(self.root).split("/")[: -each.level]
            base = ".".join(parts) + ("." if parts and each.module else "")
        first = (base + each.module).partition(".")[0]
        if not each.level and first in _THERE:
            if self._file_of(first):
                self._shadowed(importer, each, first)
            return
        for name in self._candidates(base + each.module, each.names):
            file = self._file_of(name)
            if file and self.root + file not in self._seen:
                self._module(self.root + file)
        full = base + each.module
        if full and not each.optional and not self._file_of(full) and not self._is_directory(full):
            own = each.level > 0 or self._file_of(first) is not None or self._is_directory(first)
            (self._forgotten if own else self._missing)(importer, each)

    @staticmethod
    def _candidates(module: str, names: tuple[str, ...]) -> Iterator[str]:
        parts = module.split(".") if module else []
        yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))
        yield from (".".join([*parts, name]) for name in names)

    def _file_of(self, module: str) -> str | None:
        path = module.replace(".", "/")
        found = (each for each in (f"{path}.py", f"{path}/__init__.py") if self.root + each in self.members)
        return next(found, None)

    def _is_directory(self, module: str) -> bool:
        place = f"{self.root}{module.replace('.', '/')}/"
        return any(each.startswith(place) and each.endswith(".py") for each in self.members)

    def _forgotten(self, importer: str, each: Import) -> None:
        message = f"import of {'.' * each.level}{each.module}: the model directory has no such file"
        self.findings.append(Finding("error", message, importer, each.line))

    def _shadowed(self, importer: str, each: Import, first: str) -> None:
        self.findings.append(
            Finding(
                "warning",
                f"import {each.module}: the container's own module {first} is imported, not the file {first}.py of the "
                "model; rename the file",
                importer,
                each.line,
            )
        )

    def _missing(self, importer: str, each: Import) -> None:
        first = each.module.partition(".")[0]
        asked = self.requirements
        if any(first in _modules_of(name) for name in asked.names):
            return
        likely = _distributions().get(first, [first])[0]
        remedy = f"add {likely} to requirements.txt" + ("" if likely != first else ", or the file beside model.py")
        # A package may bring modules of any name, and other packages: what the image lacks may bring this one.
        unsure = asked.unnamed or [name for name in asked.names if not _modules_of(name) & _THERE]
        what = f"import {each.module}: neither the model directory nor the container has it, and requirements.txt"
        if unsure:
            message = f"{what} does not name it, unless {unsure[0]} brings it; if it does not, {remedy}"
            self.findings.append(Finding("warning", message, importer, each.line or None))
        else:
            message = f"{what} does not ask for it; {remedy}"
            self.findings.append(Finding("error", message, importer, each.line or None))


def _modules_of(distribution: str) -> set[str]:
    """The modules that a distribution brings: as it is installed here, and by custom."""
    here = {module for module, names in _distributions().items() if distribution in map(normalised, names)}
    name = _MODULE_OF.get(distribution, distribution.replace("-", "_"))
    plain = distribution.replace("-", "_")
    return {*here, name, plain.removeprefix("python_"), plain.removeprefix("py")}


@cache
def _distributions() -> Mapping[str, list[str]]:
    """Module -> distributions, of what is installed on this machine."""
    return importlib.metadata.packages_distributions()


def _has(tree: ast.Module, handler: str) -> bool:
    """Whether the module has the function, or what stands in for it: marked functions, or SageMaker's."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom | ast.Import):
            names |= {alias.asname or alias.name for alias in node.names}
    for top in _top_level(tree.body):
        if isinstance(top, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(top.name)
            if handler == "handle" and not isinstance(top, ast.ClassDef) and top.decorator_list:
                return True  # perhaps a formatter or a handler of djl_python.encode_decode's kind
        elif isinstance(top, ast.Assign | ast.AnnAssign):
            targets = top.targets if isinstance(top, ast.Assign) else [top.target]
            names |= {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
    if handler == "handle" and names & set(_SAGEMAKERS):
        return True
    return handler in names or "*" in names


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run at import, those in if, try and with as well."""
    for node in body:
        yield node
        for name in ("body", "orelse", "finalbody"):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                yield from _top_level(getattr(node, name, []))
        for handler in getattr(node, "handlers", []):
            yield from _top_level(handler.body)


def _imports(node: ast.AST, optional: bool) -> Iterator[Import]:
    """Every import below ``node``; those are optional whose failure is caught, or that only type checkers see."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, 0, (), child.lineno, optional)
        elif isinstance(child, ast.ImportFrom):
            names = tuple(alias.name for alias in child.names)
            yield Import(child.module or "", child.level, names, child.lineno, optional)
        elif isinstance(child, ast.Try) and any(_catches_import(handler) for handler in child.handlers):
            parts = [*child.body, *(each for handler in child.handlers for each in handler.body), *child.orelse]
            yield from _imports(ast.Module(parts, []), True)
            yield from _imports(ast.Module(child.finalbody, []), optional)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            yield from _imports(child, True)
        else:
            yield from _imports(child, optional)


def _catches_import(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    names = {each.id for each in ast.walk(handler.type) if isinstance(each, ast.Name)}
    return bool(names & {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})
