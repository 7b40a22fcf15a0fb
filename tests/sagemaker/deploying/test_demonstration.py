"""The whole way with real tokens: checkpoint and code to S3, an endpoint with two ranks, a prompt, nothing left."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.sagemaker.deploying.conftest import BUCKET, TYPE, left
from tests.support.emulator import REGION, REPOSITORY, Emulator

from bloomery.checkpoints.uploading.upload import upload
from bloomery.sagemaker.deploying import Deployment, Endpoint
from bloomery.sagemaker.deploying.generated import pieces, text_of
from bloomery.sagemaker.session import Session

CHECKPOINT = f"s3://{BUCKET}/shakespeare/"


@pytest.mark.full
@pytest.mark.timeout(600)
def test_the_demonstration_model_is_deployed(
    session: Session, emulator: Emulator, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for variable, value in {
        "AWS_ENDPOINT_URL": emulator.url,
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
    }.items():
        monkeypatch.setenv(variable, value)
    upload(str(REPOSITORY / "models" / "shakespeare-bloom"), CHECKPOINT)
    code = str(REPOSITORY / "code")
    wanted = Deployment(name, (TYPE,), code, CHECKPOINT, tensor_parallel=2, upload_to=f"s3://{BUCKET}/code/")
    prompt = {"inputs": "To be, or not", "parameters": {"max_new_tokens": 8, "do_sample": False}}
    with Endpoint.deploy(wanted, session) as endpoint:
        whole = text_of(endpoint.invoke(prompt).value)
        streamed = "".join(pieces(endpoint.stream({**prompt, "stream": True})))
    assert whole is not None
    assert streamed
    assert whole.endswith(streamed)
    assert left(session, name) == []
