"""What a user may name, and what comes beside the files: manifests, names, model cards."""

from __future__ import annotations

from pathlib import Path

import pytest

from bloomery.checkpoints.source import Entry
from bloomery.checkpoints.sources import manifest, open_source
from bloomery.checkpoints.sources.card import licence
from bloomery.checkpoints.sources.directory import DirectorySource
from bloomery.checkpoints.sources.https import HttpsSource
from bloomery.checkpoints.sources.hub import HubSource
from bloomery.checkpoints.sources.manifest import Listed
from bloomery.checkpoints.sources.names import check_names
from bloomery.checkpoints.sources.s3 import S3Source
from bloomery.errors import CheckpointError


class TestOpening:
    @pytest.mark.parametrize(
        ("uri", "kind"),
        [
            ("s3://bucket/prefix/", S3Source),
            ("https://example.com/model/", HttpsSource),
            ("http://127.0.0.1:1/model/", HttpsSource),
            ("facebook/opt-125m", HubSource),
            ("gpt2", HubSource),
            ("hf://facebook/opt-125m@main", HubSource),
            ("/nowhere/model", DirectorySource),
            ("./model", DirectorySource),
            ("file:///nowhere/a%20model", DirectorySource),
        ],
    )
    def test_the_form_tells_the_source(self, uri: str, kind: type) -> None:
        source = open_source(uri)
        assert type(source) is kind
        assert source.uri == uri

    def test_a_file_url_is_decoded(self) -> None:
        source = open_source("file:///nowhere/a%20model")
        assert isinstance(source, DirectorySource)
        assert source.path == Path("/nowhere/a model")

    def test_what_is_here_is_no_hubs_model(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "org" / "name").mkdir(parents=True)
        monkeypatch.chdir(tmp_path)
        assert isinstance(open_source("org/name"), DirectorySource)

    @pytest.mark.parametrize("uri", ["gs://bucket/model", "azure://x/y", "://x"])
    def test_a_scheme_that_nobody_reads_is_refused(self, uri: str) -> None:
        with pytest.raises(CheckpointError, match="cannot be fetched: give s3://bucket/prefix"):
            open_source(uri)

    @pytest.mark.parametrize(
        ("uri", "message"),
        [
            ("", "no checkpoint is named"),
            (" ", "no checkpoint is named"),
            ("file://models/opt", "names a machine, 'models': write file:///directory"),
            ("~nobody-has-this-name/x", "cannot be looked for: Could not determine home directory"),
            ("a" * 5000 + "/b c", "cannot be looked for: .*File name too long"),
            ("https://host:port/model/", "an address cannot be understood: Port could not be cast"),
            ("https://[::1/model/", "an address cannot be understood: Invalid IPv6 URL"),
        ],
    )
    def test_what_names_nothing_is_no_other_place(self, uri: str, message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            open_source(uri)

    @pytest.mark.parametrize("path", ["", "/", "/tree/main", "/tree/main/onnx"])
    def test_a_page_of_the_hub_is_refused_with_the_models_id(self, path: str) -> None:
        with pytest.raises(
            CheckpointError, match=r"a page of the hub: name the model by its id, facebook/opt-1\.3b\.$"
        ):
            open_source(f"https://huggingface.co/facebook/opt-1.3b{path}")

    def test_a_file_of_the_hub_is_fetched_like_any_other(self) -> None:
        assert isinstance(open_source("https://huggingface.co/facebook/opt-1.3b/resolve/main/"), HttpsSource)

    @pytest.mark.parametrize("uri", ["s3://", "s3:///model"])
    def test_an_address_without_a_bucket_is_refused(self, uri: str) -> None:
        with pytest.raises(CheckpointError, match="write s3://bucket/prefix"):
            open_source(uri)

    def test_a_password_in_an_address_is_refused_and_not_shown(self) -> None:
        with pytest.raises(
            CheckpointError, match=r"s3://\*\*\*@bucket/m: an s3:// address holds no credentials"
        ) as caught:
            open_source("s3://key:secret@bucket/m")
        assert "secret" not in str(caught.value).replace("AWS_SECRET_ACCESS_KEY", "")


LISTED = {"a.safetensors": Listed(3, 0xABC, "0" * 64), "b/c.json": Listed(0, None, None)}


class TestManifests:
    def test_what_is_written_can_be_read(self) -> None:
        text = manifest.written(LISTED)
        assert b'"crc64nvme": "0000000000000abc"' in text
        assert manifest.read(text, "here") == LISTED

    def test_a_sources_own_checksum_comes_first(self) -> None:
        entries = [Entry("a.safetensors", 3, "x", crc64nvme=1), Entry("b/c.json", 1, "x")]
        assert manifest.vouched(entries, LISTED) == [Entry("a.safetensors", 3, "x", 1, "0" * 64), entries[1]]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (b"{", "here is no JSON"),
            (b"[]", "it has no object `files`"),
            (b'{"version": 2, "files": {}}', "version 2 is not 1"),
            (b'{"version": 1, "files": {"a": {}}}', "'a' has no size"),
            (b'{"version": 1, "files": {"a": {"size": true}}}', "'a' has no size"),
            (b'{"version": 1, "files": {"a": {"size": 1, "crc64nvme": "12"}}}', "'12' of 'a' is not 16 hexadecimal"),
            (b'{"version": 1, "files": {"a": {"size": 1, "sha256": 5}}}', "5 of 'a' is not 64 hexadecimal"),
            (b'{"version": 1, "files": {"../a": {"size": 1}}}', "which would leave its directory"),
        ],
    )
    def test_what_is_no_manifest_is_said(self, text: bytes, message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            manifest.read(text, "here")


class TestNames:
    @pytest.mark.parametrize("name", ["../a", "a/../../b", "/etc/passwd", "a\\b", "a\0b"])
    def test_what_leads_out_is_refused(self, name: str) -> None:
        with pytest.raises(CheckpointError, match="which would leave its directory: remove it"):
            check_names("s3://b/m", [name])

    @pytest.mark.parametrize("name", ["a//b", "./a", "a/", "x" * 256])
    def test_what_is_no_path_is_refused(self, name: str) -> None:
        with pytest.raises(CheckpointError, match="which cannot be a file's path: rename it"):
            check_names("s3://b/m", [name])

    def test_a_name_in_no_known_writing_is_refused(self) -> None:
        with pytest.raises(CheckpointError, match=r"whose name is not UTF-8 \(caf\\udce9\): rename it"):
            check_names("./m", ["caf\udce9"])

    def test_a_file_in_a_directorys_way_is_refused(self) -> None:
        with pytest.raises(CheckpointError, match="holds 'a' both as a file and as a directory"):
            check_names("s3://b/m", ["a", "a/b"])

    def test_unusual_names_pass(self) -> None:
        check_names("s3://b/m", ["a b+c%20.json", "ü/..c", "..."])


class TestLicences:
    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("---\nlicense: bigscience-bloom-rail-1.0\n---\n# BLOOM", "bigscience-bloom-rail-1.0"),
            ("\ufeff---\r\nlicense: mit\r\ntags:\r\n- x\r\n---\r\n", "mit"),
            ("---\nlicense: other\nlicense_name: opt-175b\nlicense_link: LICENSE.md\n---", "opt-175b"),
            ("---\nlicense: other\ncommercial: false\n---", "other, non-commercial"),
            (
                "---\nlicense: other\nlicense_name: llama\nlicense_link: https://x.org/l\n---\n",
                "llama (https://x.org/l)",
            ),
            ("---\nlicense:\n- mit\n- apache-2.0\n---\n", "mit, apache-2.0"),
            ("---\nlicense: other\n---\n", "other"),
            ("---\ntags: []\n---\n", None),
            ("---\nlicense: {\n---\n", None),
            ("---\nlicense: mit\ndate: 2023-02-30\n---\n", None),
            ("---\n- list\n---\n", None),
            ("---\nlicense: mit\n", None),
            ("# BLOOM\nlicense: mit", None),
        ],
    )
    def test_the_front_matter_tells(self, text: str, told: str | None) -> None:
        assert licence(text) == told
