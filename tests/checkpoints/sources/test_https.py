from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from awscrt.checksums import crc64nvme
from tests.support.certificates import make_certificate
from tests.support.web_server import Asked, Reply, WebServer, files, web_server

from bloomery.checkpoints.source import ChangedError, TransientError
from bloomery.checkpoints.sources import manifest
from bloomery.checkpoints.sources.https import HttpsSource
from bloomery.checkpoints.sources.manifest import Listed
from bloomery.checkpoints.sources.reading import read_bytes
from bloomery.checkpoints.wire.transport import Transport
from bloomery.errors import CheckpointError

WEIGHTS = bytes(range(256)) * 100
INDEX = json.dumps({"weight_map": {"a": "model-1 of 2.safetensors", "b": "model-2 of 2.safetensors"}}).encode()
MODEL = {
    "/models/opt-1.3b/config.json": b"{}",
    "/models/opt-1.3b/README.md": b"---\nlicense: mit\n---\n",
    "/models/opt-1.3b/tokenizer.model": b"tokens",
    "/models/opt-1.3b/model.safetensors.index.json": INDEX,
    "/models/opt-1.3b/model-1%20of%202.safetensors": WEIGHTS,
    "/models/opt-1.3b/model-2%20of%202.safetensors": b"",
}


@pytest.fixture
def content() -> dict[str, bytes]:
    return dict(MODEL)


@pytest.fixture
def site(content: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with web_server(files(content)) as server:
        yield server


def contents(source: HttpsSource) -> dict[str, bytes]:
    with closing(source.connect()) as connection:
        return {entry.name: read_bytes(connection, entry) for entry in source.entries()}


class TestDirectories:
    @pytest.mark.parametrize("slash", ["", "/"])
    def test_the_index_and_the_usual_names_tell_what_is_there(self, site: WebServer, slash: str) -> None:
        source = HttpsSource(f"{site.url}/models/opt-1.3b{slash}")
        found = contents(source)
        assert found == {path.rpartition("/")[2].replace("%20", " "): data for path, data in MODEL.items()}
        assert source.licence == "mit"

    def test_a_manifest_tells_all_and_vouches_for_it(self, site: WebServer, content: dict[str, bytes]) -> None:
        content.clear()
        content |= {"/m/odd.name": b"odd", "/m/config.json": b"{}"}
        listed = {"odd.name": Listed(3, crc64nvme(b"odd"), None), "config.json": Listed(2, None, "ab" * 32)}
        content["/m/MANIFEST.json"] = manifest.written(listed)
        source = HttpsSource(f"{site.url}/m/")
        found = {entry.name: entry for entry in source.checksummed(source.entries())}
        assert set(found) == {"MANIFEST.json", "odd.name", "config.json"}
        assert found["odd.name"].crc64nvme == crc64nvme(b"odd")
        assert found["config.json"].sha256 == "ab" * 32

    def test_a_manifest_of_other_files_is_refused(self, site: WebServer, content: dict[str, bytes]) -> None:
        content |= {
            "/m/MANIFEST.json": manifest.written({"config.json": Listed(3, None, None)}),
            "/m/config.json": b"{}",
        }
        with pytest.raises(CheckpointError, match=r"/m/config\.json has 2 bytes, and should have 3 by MANIFEST\.json"):
            HttpsSource(f"{site.url}/m/").entries()

    def test_a_shard_that_is_missing_is_named(self, site: WebServer, content: dict[str, bytes]) -> None:
        del content["/models/opt-1.3b/model-2%20of%202.safetensors"]
        with pytest.raises(CheckpointError, match=r"lacks 'model-2 of 2\.safetensors', which its index names"):
            HttpsSource(f"{site.url}/models/opt-1.3b/").entries()

    def test_an_index_cannot_lead_out(self, site: WebServer, content: dict[str, bytes]) -> None:
        index = json.dumps({"weight_map": {"a": "../../etc/passwd"}}).encode()
        content["/models/opt-1.3b/model.safetensors.index.json"] = index
        with pytest.raises(CheckpointError, match="would leave its directory"):
            HttpsSource(f"{site.url}/models/opt-1.3b/").entries()

    def test_a_server_that_refuses_what_is_not_there_is_read(
        self, site: WebServer, content: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """S3 and CloudFront do, to who may not list."""
        there = files(content)

        def refusing(asked: Asked) -> Reply:
            reply = there(asked)
            return Reply(403, b"<Code>AccessDenied</Code>") if reply.status == 404 else reply

        monkeypatch.setattr(site, "replies", refusing)
        assert "model-1 of 2.safetensors" in contents(HttpsSource(f"{site.url}/models/opt-1.3b/"))
        with pytest.raises(CheckpointError, match=r"nothing/config\.json cannot be fetched: 403 .*other credentials"):
            HttpsSource(f"{site.url}/nothing/").entries()

    def test_a_directory_without_a_model_is_said(self, site: WebServer) -> None:
        with pytest.raises(CheckpointError, match="/nothing holds none of the files of a model directory"):
            HttpsSource(f"{site.url}/nothing").entries()


class TestFiles:
    def test_one_file_may_be_named(self, site: WebServer) -> None:
        assert contents(HttpsSource(f"{site.url}/models/opt-1.3b/config.json")) == {"config.json": b"{}"}

    def test_a_range_is_read(self, site: WebServer) -> None:
        source = HttpsSource(f"{site.url}/models/opt-1.3b/model-1%20of%202.safetensors")
        with closing(source.connect()) as connection:
            assert read_bytes(connection, source.entries()[0], 300, 500) == WEIGHTS[300:800]

    def test_a_file_that_is_not_there_is_named(self, site: WebServer) -> None:
        with pytest.raises(CheckpointError, match=r"/other\.bin cannot be fetched: 404: there is no such file"):
            HttpsSource(f"{site.url}/other.bin").entries()

    def test_a_replaced_file_is_noticed(self, site: WebServer, content: dict[str, bytes]) -> None:
        source = HttpsSource(f"{site.url}/models/opt-1.3b/config.json")
        entry = source.entries()[0]
        content["/models/opt-1.3b/config.json"] = b"[]"
        replaced = pytest.raises(ChangedError, match=r"config\.json, bytes 0-1: the file was replaced")
        with closing(source.connect()) as connection, replaced:
            read_bytes(connection, entry)

    def test_a_server_without_ranges_serves_small_files_only(self, site: WebServer) -> None:
        source = HttpsSource(f"{site.url}/file.bin")
        site.replies = lambda asked: Reply(200, WEIGHTS, ranges=False)
        entry = source.entries()[0]
        with closing(source.connect()) as connection:
            assert read_bytes(connection, entry) == WEIGHTS
            with pytest.raises(CheckpointError, match="it cannot send ranges"):
                read_bytes(connection, entry, 1)

    @pytest.mark.parametrize(
        ("headers", "message"),
        [
            ({"Content-Range": "bytes 0-24/25600"}, "the server sent another range of it"),
            ({"Content-Range": "bytes 1-25/999"}, "the file is 999 bytes long now, not 25600"),
            ({}, "the server sent a range without saying which"),
            ({"Content-Range": "bytes 1-25/25600", "Content-Length": "24"}, "announced 24 bytes instead of 25"),
        ],
    )
    def test_another_range_than_asked_for_is_not_taken(
        self, site: WebServer, headers: dict[str, str], message: str
    ) -> None:
        source = HttpsSource(f"{site.url}/models/opt-1.3b/model-1%20of%202.safetensors")
        entry = source.entries()[0]
        site.replies = lambda asked: Reply(206, WEIGHTS[:25], {"ETag": entry.identity, **headers}, ranges=False)
        with (
            closing(source.connect()) as connection,
            pytest.raises(CheckpointError, match=message),
            connection.read(entry, 1, 25),
        ):
            pass

    def test_a_busy_server_is_asked_again(self, site: WebServer) -> None:
        source = HttpsSource(f"{site.url}/models/opt-1.3b/config.json")
        entry = source.entries()[0]
        site.replies = lambda asked: Reply(429, headers={"Retry-After": "3"})
        with (
            closing(source.connect()) as connection,
            pytest.raises(TransientError) as caught,
            connection.read(entry, 0, 2),
        ):
            pass
        assert (caught.value.slow_down, caught.value.after) == (True, 3)

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_refusal_is_told_without_the_signature(self, site: WebServer, status: int) -> None:
        site.replies = lambda asked: Reply(status)
        source = HttpsSource(f"{site.url}/file.bin?sig=abc")
        with pytest.raises(CheckpointError, match=f"/file.bin cannot be fetched: {status} ") as caught:
            source.entries()
        assert "abc" not in str(caught.value) + source.uri


class TestAddresses:
    def test_a_query_and_a_password_go_with_every_request(self, site: WebServer) -> None:
        url = site.url.replace("//", "//user:pass@") + "/models/opt-1.3b/?sas=x%2Fy"
        assert "config.json" in contents(HttpsSource(url))
        assert all(path.endswith("?sas=x%2Fy") for path in site.paths)
        assert {asked.headers["authorization"] for asked in site.requests} == {"Basic dXNlcjpwYXNz"}

    def test_plain_http_is_for_this_machine_only(self) -> None:
        with pytest.raises(CheckpointError, match=r"http://example\.com/model is not encrypted: write https://"):
            HttpsSource("http://user:pass@example.com/model?secret")

    def test_a_redirect_is_followed_once_and_kept_until_it_fails(self, site: WebServer) -> None:
        usual, signed = files({"/data": WEIGHTS}), {"/data?1"}

        def reply(asked: Asked) -> Reply:
            if asked.path == "/file.bin":
                return Reply(302, headers={"Location": f"/data?{len(signed)}"})
            return usual(asked) if asked.path in signed else Reply(403)

        site.replies = reply
        source = HttpsSource(f"{site.url}/file.bin")
        entry = source.entries()[0]
        with closing(source.connect()) as connection:
            assert read_bytes(connection, entry, 0, 100) == WEIGHTS[:100]
            assert site.paths == ["/file.bin", "/data?1", "/data?1"]
            signed.clear()
            signed.add("/data?1 is over")
            signed.add("/data?2")
            assert read_bytes(connection, entry, 0, 100) == WEIGHTS[:100]
        assert site.paths[3:] == ["/data?1", "/file.bin", "/data?2"]

    def test_a_password_does_not_follow_to_another_server(self, site: WebServer) -> None:
        with web_server(files({"/data": WEIGHTS})) as other:
            site.replies = lambda asked: Reply(302, headers={"Location": f"{other.url}/data"})
            assert contents(HttpsSource(site.url.replace("//", "//user:pass@") + "/file.bin")) == {"file.bin": WEIGHTS}
        assert "authorization" in site.requests[0].headers
        assert not any("authorization" in asked.headers for asked in other.requests)

    @pytest.mark.parametrize("location", ["http://127.0.0.1:1/data", "http://example.com/data", "file:///etc/passwd"])
    def test_a_redirect_to_plain_text_is_not_followed(self, tmp_path: Path, location: str) -> None:
        certificate = make_certificate(tmp_path)
        with web_server(lambda asked: Reply(302, headers={"Location": location}), certificate) as server:
            source = HttpsSource(f"{server.url}/file.bin", transport=Transport(ca_bundle=str(certificate[0])))
            with pytest.raises(CheckpointError, match=f"leads to {location.partition(':')[0]}, not https"):
                source.entries()

    def test_redirects_in_a_circle_end(self, site: WebServer) -> None:
        site.replies = lambda asked: Reply(302, headers={"Location": "/file.bin"})
        with pytest.raises(CheckpointError, match="leads on more than 5 times"):
            HttpsSource(f"{site.url}/file.bin").entries()
