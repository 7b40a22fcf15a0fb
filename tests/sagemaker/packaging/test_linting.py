"""What is found in a model directory before it is an archive, each with its place and what to do."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path

import pytest
from tests.sagemaker.packaging.conftest import MODEL, Writer

from bloomery.errors import PackagingError
from bloomery.sagemaker.packaging import Finding, package
from bloomery.sagemaker.packaging.image_modules import MODULES
from bloomery.sagemaker.packaging.requirements import normalised

REPOSITORY = Path(__file__).parents[3]
KEY = "AKIA" + "QWERTYUIOPASDFGH"
TOKEN = "hf_" + "a1B2c3D4e5" * 3 + "wxyz"


def findings(directory: Path, **options: object) -> tuple[Finding, ...]:
    try:
        return package(directory, None, **options).notes  # type: ignore[arg-type]
    except PackagingError as error:
        return error.findings


def shown(found: tuple[Finding, ...]) -> list[str]:
    return [each.labelled for each in found]


# (files beside or in place of a good model.py, the one finding: its place and level, and words that name the mistake
# and the remedy)
MISTAKES: dict[str, tuple[dict[str, str | bytes], str, list[str]]] = {
    "misspelt option": (
        {"serving.properties": "engine=Python\noption.tensor_paralel_degree=2\n"},
        "serving.properties:2: warning",
        ["option.tensor_paralel_degree", "did you mean option.tensor_parallel_degree?"],
    ),
    "misspelt key": (
        {"serving.properties": "enigne=Python\n"},
        "serving.properties:1: warning",
        ["enigne", "did you mean engine?"],
    ),
    "option without its prefix": (
        {"serving.properties": "dtype=fp16\n"},
        "serving.properties:1: warning",
        ["did you mean option.dtype?"],
    ),
    "key of the server": (
        {"serving.properties": "max_request_size=1\n"},
        "serving.properties:1: warning",
        ["SERVING_MAX_REQUEST_SIZE"],
    ),
    "value of the wrong kind": (
        {"serving.properties": "engine=DeepSpeed\noption.tensor_parallel_degree=eight\n"},
        "serving.properties:2: error",
        ["option.tensor_parallel_degree=eight", "a whole number of at least 1, or max"],
    ),
    "engine that is not here": (
        {"serving.properties": "engine=vllm\n"},
        "serving.properties:1: error",
        ["engine=vllm", "engine=DeepSpeed"],
    ),
    "line without a key": (
        {"serving.properties": "engine=Python\n= 8\n"},
        "serving.properties:2: error",
        ["'= 8'", "write key=value"],
    ),
    "key twice": (
        {"serving.properties": "batch_size=2\n\nbatch_size=4\n"},
        "serving.properties:3: warning",
        ["batch_size", "line 1", "(2)", "the last one counts (4)", "remove one"],
    ),
    "line twice": (
        {"serving.properties": "engine=Python\nengine=Python\n"},
        "serving.properties:2: remark",
        ["line 1", "remove one"],
    ),
    "byte order mark": (
        {"serving.properties": b"\xef\xbb\xbfengine=Python\n"},
        "serving.properties:1: warning",
        ["byte order mark", "save it as UTF-8"],
    ),
    "lines of Windows": (
        {"serving.properties": "engine=Python\r\n"},
        "serving.properties:1: warning",
        ["CRLF", "LF"],
    ),
    "contradiction": (
        {"serving.properties": "option.async_mode=true\nbatch_size=4\n"},
        "serving.properties:2: warning",
        ["batch_size=4", "no effect", "async_mode"],
    ),
    "more workers at least than at most": (
        {"serving.properties": "minWorkers=3\nmaxWorkers=2\n"},
        "error",
        ["minWorkers=3", "maxWorkers=2", "raise one or lower the other"],
    ),
    "time that SageMaker does not give": (
        {"serving.properties": "option.predict_timeout=600\n"},
        "serving.properties:1: remark",
        ["60 s", "stream"],
    ),
    "checkpoint on this machine": (
        {"serving.properties": "option.model_id=/home/me/bloom\n"},
        "serving.properties:1: error",
        ["/home/me/bloom", "bloomery upload /home/me/bloom s3://bucket/prefix/"],
    ),
    "two checkpoints": (
        {"serving.properties": "option.model_id=a/b\noption.s3url=s3://b/p/\n"},
        "error",
        ["option.model_id", "option.s3url", "keep one"],
    ),
    "checkpoint beside it that is not there": (
        {"serving.properties": "option.model_id=./weights\n"},
        "serving.properties:1: error",
        ["there is no weights"],
    ),
    "import of an own package's file that is not there": (
        {"pkg/__init__.py": "", "model.py": "import pkg.missing\n" + MODEL},
        "model.py:1: error",
        ["pkg.missing", "no such file"],
    ),
    "entry point that is not there": (
        {"serving.properties": "option.entryPoint=handler.py\n"},
        "serving.properties:1: error",
        ["handler.py"],
    ),
    "nothing that says what to serve": (
        {"model.py": b"", "serving.properties": "engine=Python\n"},
        "error",
        ["no model.py", "option.model_id"],
    ),
    "code that does not parse": (
        {"model.py": "import os\ndef handle(inputs)\n    pass\n"},
        "model.py:2: error",
        ["no valid Python"],
    ),
    "no handle": (
        {"model.py": "def predict(inputs):\n    return 1\n"},
        "model.py: error",
        ["'handle'", "predict", "option.handler"],
    ),
    "another handler that is not there": (
        {"serving.properties": "option.handler=answer\n"},
        "model.py: error",
        ["'answer'", "handle"],
    ),
    "import that nobody brings": (
        {"model.py": "import nowhere_to_be_found\n" + MODEL},
        "model.py:1: error",
        ["nowhere_to_be_found", "add nowhere_to_be_found to requirements.txt"],
    ),
    "import in a file that model.py imports": (
        {"model.py": "from helper import f\n" + MODEL, "helper.py": "def f():\n    import nowhere_to_be_found\n"},
        "helper.py:2: error",
        ["nowhere_to_be_found"],
    ),
    "import of a file that was forgotten": (
        {"pkg/__init__.py": "from .missing import x\n", "model.py": "import pkg\n" + MODEL},
        "pkg/__init__.py:1: error",
        ["import of .missing", "no such file"],
    ),
    "file called like a library": (
        {"json.py": "", "model.py": "import json\n" + MODEL},
        "model.py:1: warning",
        ["json.py", "rename"],
    ),
    "import that a requirement of another name may bring": (
        {"model.py": "import nowhere_to_be_found\n" + MODEL, "requirements.txt": "no-such-distribution==1\n"},
        "model.py:1: warning",
        ["unless no-such-distribution brings it"],
    ),
    "import that nobody brings, beside what the container has": (
        {"model.py": "import nowhere_to_be_found\n" + MODEL, "requirements.txt": "numpy\n"},
        "model.py:1: error",
        ["nowhere_to_be_found"],
    ),
    "import that another package may bring with it": (
        {"model.py": "import sklearn, joblib\n" + MODEL, "requirements.txt": "scikit-learn\n"},
        "model.py:1: warning",
        ["import joblib", "unless scikit-learn brings it"],
    ),
    "import where the try has succeeded": (
        {"model.py": "try:\n    pass\nexcept KeyError:\n    pass\nelse:\n    import nowhere_to_be_found\n" + MODEL},
        "model.py:6: error",
        ["nowhere_to_be_found"],
    ),
    "requirement of this machine": (
        {"requirements.txt": "six\nmine @ file:///home/me/mine\n"},
        "requirements.txt:2: error",
        ["a place on your machine"],
    ),
    "editable requirement": (
        {"requirements.txt": "-e ../library\n"},
        "requirements.txt:1: error",
        ["../library", "wheel"],
    ),
    "requirement as conda writes it": (
        {"requirements.txt": "numpy=2.0=py311\n"},
        "requirements.txt:1: error",
        ["cannot read", "numpy==2.0=py311"],
    ),
    "included requirements that are not there": (
        {"requirements.txt": "# all\n\n-r base.txt\n"},
        "requirements.txt:3: error",
        ["base.txt", "put it there"],
    ),
    "index of one's own": (
        {"requirements.txt": "--extra-index-url https://packages.example.com/simple\n"},
        "requirements.txt:1: warning",
        ["has to reach this host"],
    ),
    "requirement with a password": (
        {"requirements.txt": "mine @ https://me:hunter2@example.com/mine.whl\n"},
        "requirements.txt:1: error",
        ["a password", "https://***@example.com", "requirements/"],
    ),
    "requirement from git": (
        {"requirements.txt": "mine @ git+ssh://git@example.com/mine.git\n"},
        "requirements.txt:1: warning",
        ["git", "wheel"],
    ),
    "weights": ({"pytorch_model.bin": "x"}, "pytorch_model.bin: error", ["bloomery upload", "--allow-large"]),
    "weights of another kind": ({"a/model.gguf": "x"}, "a/model.gguf: error", ["weights", "--exclude"]),
    "file of secrets": ({".env": "A=b"}, ".env: error", ["secrets", "--exclude"]),
    "access key": ({"model.py": MODEL + f"\nKEY = '{KEY}'\n"}, "model.py:4: error", ["AWS access key", "a role"]),
    "token": ({"conf/a.json": f'{{"t": "{TOKEN}"}}'}, "conf/a.json:1: error", ["Hugging Face token", "(hf_a…)"]),
    "API key": (
        {"notes.txt": "sk-" + "proj-" + "a1B2c3D4" * 5},
        "notes.txt:1: error",
        ["an API key", "(sk-p…)"],
    ),
    "private key": (
        {"cert/key.pem": "-----BEGIN RSA PRIVATE KEY-----\n"},
        "cert/key.pem:1: error",
        ["private key"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake(write: Writer, mistake: str) -> None:
    files, place, words = MISTAKES[mistake]
    directory = write({"model.py": MODEL, **files})
    if files.get("model.py") == b"":
        (directory / "model.py").unlink()
    found = findings(directory)
    assert len(found) == 1, shown(found)
    text = found[0].labelled
    assert text.startswith(f"{place}: ")
    for word in words:
        assert word in text
    assert str(directory) not in text
    for secret in (KEY, TOKEN):
        assert secret not in text


GOOD: dict[str, dict[str, str | bytes]] = {
    "everything that the container has": {
        "model.py": "import os, torch, transformers\nfrom djl_python import Input\nimport bloomery.tasks\n" + MODEL
    },
    "what it does without": {
        "model.py": "try:\n    import nowhere\nexcept ImportError:\n    import elsewhere\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from nobody import T\n" + MODEL
    },
    "own files and packages": {
        "model.py": "import helper\nfrom pkg.part import f\nfrom pkg import part, thing\nimport space.inner\n" + MODEL,
        "helper.py": "import model\n",
        "pkg/__init__.py": "thing = 1\n",
        "pkg/part.py": "from . import other\nfrom .other import g\nfrom .. import helper\ndef f(): ...\n",
        "pkg/other.py": "from pkg import part\ndef g(): ...\n",
        "space/inner.py": "",
    },
    "what requirements.txt asks for": {
        "model.py": "import sklearn.svm, yaml, cv2, my_lib\n" + MODEL,
        "requirements.txt": "scikit-learn==1.7 ; python_version > '3'  # of course\n-r more.txt\n./my_lib-1.whl\n",
        "more.txt": "opencv-python-headless[extra]>=4, \\\n  <5\nMy.Lib @ https://example.com/x.whl\n",
        "my_lib-1.whl": "x",
    },
    "what the container has for the asking": {
        "model.py": "import numpy\n" + MODEL,
        "requirements.txt": "numpy\ntransformers>=5\n",
    },
    "a handler that is made elsewhere": {"model.py": "from helper import handle\n", "helper.py": MODEL},
    "a handler of any kind": {"model.py": "if True:\n    handle = print\n"},
    "the names of SageMaker's toolkits": {"model.py": "def model_fn(d): ...\ndef predict_fn(x, m): ...\n"},
    "marked functions": {
        "model.py": "from djl_python.output_formatter import output_formatter\n@output_formatter\ndef shape(o): ...\n"
    },
    "another name for it": {"model.py": "def answer(inputs): ...\n", "serving.properties": "option.handler=answer\n"},
    "no code at all": {"model.py": "", "serving.properties": "option.model_id=s3://bucket/bloom/\n"},
    "what AWS prints in its documentation": {"model.py": MODEL + "KEY = 'AKIAIOSFODNN7EXAMPLE'\n"},
    "names that look like keys": {"page.css": ".sk-toggleable-content-of-an-estimator-in-a-notebook {}"},
    "certificates without a key": {"ca.pem": "-----BEGIN CERTIFICATE-----\n"},
    "a checkpoint that the image or SageMaker brings": {"serving.properties": "option.model_id=/opt/ml/data/bloom\n"},
    "a handler's own options": {"serving.properties": "option.my_own_thing=1\noption.env=A=b\n"},
}  # fmt: skip


@pytest.mark.parametrize("case", GOOD)
def test_nothing_is_said_of(write: Writer, case: str) -> None:
    directory = write({"model.py": MODEL, **GOOD[case]})
    if GOOD[case].get("model.py") == "":
        (directory / "model.py").unlink()
    found = [each for each in findings(directory) if "has to reach" not in each.message]
    assert shown(tuple(found)) == []


def test_all_is_said_at_once_and_the_errors_come_first(write: Writer) -> None:
    directory = write({
        "serving.properties": "engine=Python\noption.dtyp=fp16\nbatch_size=none\nretry_threshold=-1\n",
        "model.py": "import nowhere_to_be_found\n",
        "model.safetensors": "x",
        "credentials": "x",
    })  # fmt: skip
    with pytest.raises(PackagingError) as caught:
        package(directory, None)
    assert [each.level for each in caught.value.findings] == ["error"] * 6 + ["warning"]
    assert "6 things are wrong" in str(caught.value)
    assert "dtyp" not in str(caught.value)


def test_warnings_are_errors_when_they_shall_be(write: Writer) -> None:
    directory = write({"model.py": MODEL, "serving.properties": "option.dtyp=fp16\n"})
    assert package(directory, None).notes
    with pytest.raises(PackagingError, match=r"did you mean option\.dtype"):
        package(directory, None, strict=True)


def test_large_files_may_be_allowed(write: Writer) -> None:
    directory = write({"model.py": MODEL, "adapter.safetensors": "x"})
    with (directory / "table.json").open("wb") as file:
        file.truncate(50 * 10**6 + 1)
    found = findings(directory)
    assert [each.subject for each in found] == ["adapter.safetensors", "table.json"]
    assert "50.0 MB" in found[1].message
    assert package(directory, None, allow_large=True).notes == ()
    assert package(directory, None, exclude=["*.safetensors", "table.json"]).members == ("model.py",)


def test_a_model_one_directory_down_is_found_as_the_server_finds_it(write: Writer) -> None:
    directory = write({"bloom/serving.properties": "engine=Python\nbatch_siz=1\n", "bloom/model.py": MODEL})
    assert shown(findings(directory))[0].startswith("bloom/serving.properties:2: warning: batch_siz")
    # Below another directory it is two down, where nobody looks.
    assert (
        "bloom: error: below --top code the model would be two directories down"
        in shown(findings(directory, top="code"))[0]
    )


def test_an_empty_directory(write: Writer) -> None:
    (found,) = findings(write({}))
    assert "nothing says what to serve" in found.message


def test_a_handler_called_like_its_directory_needs_that_directory(write: Writer) -> None:
    directory = write({"code.py": MODEL})
    (found,) = findings(directory)
    assert found.labelled.startswith("code.py: error")
    assert "--top code" in found.message
    assert findings(directory, top="code") == ()


def test_the_products_own_handler_is_fit(write: Writer) -> None:
    assert findings(REPOSITORY / "code") == ()


def test_the_modules_of_the_image_are_those_of_the_pinned_packages() -> None:
    pinned = re.findall(r"(?m)^([\w.-]+)==", (REPOSITORY / "requirements.txt").read_text())
    wanted = {normalised(name) for name in pinned}
    brought = {
        module
        for module, names in importlib.metadata.packages_distributions().items()
        if wanted & {normalised(name) for name in names} and re.fullmatch(r"[a-zA-Z]\w*", module)
    }
    if sys.platform != "linux":
        assert brought <= MODULES
    else:
        assert brought == MODULES
