"""``bloomery plan``: exit codes, what is printed, and the account's quotas."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.emulator import Emulator, emulating, environment
from tests.support.server import REPOSITORY
from tests.support.weightless import opt_30b

MODEL = REPOSITORY / "models" / "shakespeare-bloom"


@pytest.fixture(scope="module")
def opt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = opt_30b(tmp_path_factory.mktemp("models") / "opt-30b")
    (path / "README.md").write_text("---\nlicense: other\ncommercial: false\n---\n")
    return path


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    where = tmp_path_factory.mktemp("emulator")
    tables = where / "tables.json"
    tables.write_text(json.dumps({"quotas": {"ml.g5.12xlarge": 3, "ml.g5.24xlarge": 0}}))
    with emulating(where / "state", "--tables", str(tables)) as emulator:
        yield emulator


def plan(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bloomery", "plan", *map(str, arguments)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)


def test_text_says_what_fits_and_how_to_deploy_it(opt: Path) -> None:
    done = plan("--checkpoint", opt, "--batch", "4", "--length", "512", "--price", "ml.g5.12xlarge=7.09")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[1] == "  model              opt, 29,974,540,288 parameters"
    assert "  stored             safetensors: 59.95 GB F16" in lines
    assert "  weights            15.55 GB on each of 4 ranks: 754.2 MB whole + 14.80 GB its part" in lines
    (row,) = [line for line in lines if line.startswith("ml.g5.12xlarge")]
    assert row.split()[:6] == ["ml.g5.12xlarge", "4", "A10G", "4", "1", "20.6"]
    assert row.endswith("7.09")
    assert any(line.startswith("too small: ml.g4dn.{") for line in lines)
    assert "recommended: ml.g5.12xlarge" in lines  # the only one with a price
    assert any(
        line.split() == ["VolumeSizeInGB", *["do", "not", "set", "it:", "3800", "GB", "of", "local", "NVMe"]]
        for line in lines
    )
    assert "note: licence other, non-commercial: not for commercial use" in lines


def test_nothing_that_fits_is_exit_code_1(opt: Path) -> None:
    done = plan("--checkpoint", opt, "--instance-type", "ml.g5.xlarge")
    assert done.returncode == 1
    assert "recommended: nothing fits" in done.stdout
    assert "--dtype int8" in done.stdout


def test_json(opt: Path) -> None:
    done = plan("--checkpoint", opt, "--instance-type", "ml.g5.12xlarge", "--price", "7.09", "--json")
    found = json.loads(done.stdout)
    assert {option["usd_per_hour"] for option in found["options"]} == {7.09}
    assert {option["tensor_parallel"] for option in found["options"]} == {1, 2, 4}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--price", "7"], 2, "give TYPE=USD, such as ml.g5.12xlarge=7.09"),
        (["--price", "ml.g5.12xlarge=cheap"], 2, "--price ml.g5.12xlarge=cheap"),
        (["--dtype", "int4"], 2, "dtype='int4'"),
        (["--instance-type", "ml.g5"], 2, "'ml.g5' is not in the table"),
        (["--tensor-parallel", "3"], 1, "does not divide the 8 attention heads"),
    ],
)
def test_mistakes_have_an_exit_code_and_a_sentence(arguments: list[str], code: int, words: str) -> None:
    done = plan("--checkpoint", MODEL, *arguments)
    assert (done.returncode, done.stderr.startswith("bloomery: "), words in done.stderr) == (code, True, True), done


def test_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    done = plan("--checkpoint", tmp_path / "none")
    assert done.returncode == 1
    assert str(tmp_path / "none") in done.stderr


def test_the_accounts_quotas(opt: Path, emulator: Emulator) -> None:
    types = ("--instance-type", "ml.g5.12xlarge", "--instance-type", "ml.g5.24xlarge")
    asked = ("--check-quota", "--target", "local", "--endpoint-url", emulator.url)
    done = plan("--checkpoint", opt, *types, *asked)
    assert (done.returncode, done.stderr) == (0, "")
    assert "ml.g5.12xlarge for endpoint usage: 3\n" in done.stdout
    assert "ml.g5.24xlarge for endpoint usage: 0; ask for more before you deploy: aws service-quotas" in done.stdout
    found = json.loads(plan("--checkpoint", opt, *types, *asked, "--json").stdout)
    assert {option["instance_type"]: option["quota"]["value"] for option in found["options"]} == {
        "ml.g5.12xlarge": 3,
        "ml.g5.24xlarge": 0,
    }


def test_prices_of_the_list_sort_what_fits_and_given_ones_count_more(opt: Path, emulator: Emulator) -> None:
    asked = ("--check-price", "--target", "local", "--endpoint-url", emulator.url, "--region", "us-east-1", "--json")
    found = json.loads(plan("--checkpoint", opt, *asked, "--price", "ml.p5.4xlarge=5").stdout)
    prices = {option["instance_type"]: option["usd_per_hour"] for option in found["options"] if option["fits"]}
    assert list(prices)[:3] == ["ml.p5.4xlarge", "ml.g6.12xlarge", "ml.g5.12xlarge"]
    assert [prices[name] for name in ("ml.p5.4xlarge", "ml.g6.12xlarge", "ml.g5.12xlarge")] == [5, 5.752, 7.09]


def test_an_emulator_that_is_not_there_is_said_in_words() -> None:
    done = plan("--checkpoint", MODEL, "--check-quota", "--target", "local", "--endpoint-url", "http://127.0.0.1:9")
    assert done.returncode != 0
    assert "no emulator answers" in done.stderr


def test_no_torch_and_no_numpy_is_loaded() -> None:
    code = (
        "import sys; from bloomery.sagemaker.planning import plan; plan(sys.argv[1]); "
        "sys.exit(' '.join({'torch', 'numpy', 'boto3', 'transformers'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, str(MODEL)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr.strip() == ""
