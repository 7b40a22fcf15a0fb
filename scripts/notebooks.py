"""notebooks/*.py is the source: make the .ipynb files from it, or say which differ, or execute one.

An .ipynb in the repository holds no outputs, and nothing that changes from one run to the next.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

import jupytext
import nbformat
from notebook_run import FOLDER, ROOT, Failed, run

_KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def read(source: Path) -> nbformat.NotebookNode:
    """The notebook of a source. A cell is called by its text, so that a new cell leaves the names of others alone."""
    made = jupytext.reads(source.read_text(), fmt="py:percent")
    seen: set[str] = set()
    for cell in made.cells:
        name = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:8]
        while name in seen:
            name += "x"
        seen.add(name)
        cell.id = name
    made.metadata = nbformat.from_dict({"kernelspec": _KERNEL, "language_info": {"name": "python"}})
    made.nbformat, made.nbformat_minor = 4, 5
    nbformat.validate(made)
    return made


def generated() -> dict[Path, str]:
    """What each .ipynb has to hold."""
    return {each.with_suffix(".ipynb"): nbformat.writes(read(each)) + "\n" for each in sorted(FOLDER.glob("*.py"))}


def stale() -> list[str]:
    """What is wrong, a line for each file."""
    wanted = generated()
    found = {each for each in FOLDER.glob("*.ipynb") if each not in wanted}
    wrong = [f"{each.relative_to(ROOT)} has no source" for each in sorted(found)]
    for path, text in wanted.items():
        if not path.exists() or path.read_text() != text:
            wrong.append(f"{path.relative_to(ROOT)} is not what {path.stem}.py says: run scripts/notebooks")
    return wrong


def generate() -> None:
    """Write those that differ; remove those without a source."""
    wanted = generated()
    for path in FOLDER.glob("*.ipynb"):
        if path not in wanted:
            path.unlink()
    for path, text in wanted.items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(path.relative_to(ROOT))


def find(name: str) -> Path:
    """The one source whose name begins with ``name``, or the file called so."""
    if name.endswith(".py") and Path(name).is_file():
        return Path(name).resolve()
    found = [each for each in sorted(FOLDER.glob("*.py")) if each.stem.startswith(name)]
    if len(found) != 1:
        known = ", ".join(each.stem for each in sorted(FOLDER.glob("*.py")))
        raise SystemExit(f"{name!r} is {'several' if found else 'none'} of the notebooks: {known}")
    return found[0]


def assignments(given: list[str]) -> dict[str, str]:
    """``NAME=VALUE`` of the command line."""
    found = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name.isidentifier():
            raise SystemExit(f"-p takes NAME=VALUE; got {each!r}")
        found[name] = value
    return found


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/notebooks", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when a file differs")
    parser.add_argument("--run", metavar="NAME", help="execute one, against an emulator that is started for it")
    parser.add_argument("-p", dest="parameters", metavar="NAME=VALUE", action="append", default=[])
    parser.add_argument("--endpoint-url", metavar="URL", help="an emulator that runs already")
    parser.add_argument("--output", type=Path, metavar="FILE", help="keep the executed notebook here")
    arguments = parser.parse_args()
    if arguments.run:
        source = find(arguments.run)
        try:
            run(read(source), source.stem, assignments(arguments.parameters), arguments.endpoint_url, arguments.output)
        except Failed as failure:
            print(failure, file=sys.stderr)
            return 1
    elif arguments.check:
        wrong = stale()
        print("\n".join(wrong) if wrong else "notebooks: as their sources say")
        return bool(wrong)
    else:
        generate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
