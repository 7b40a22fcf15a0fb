"""The S3 source over a server that can fail."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from awscrt.checksums import crc64nvme
from tests.support.certificates import make_certificate
from tests.support.faulty_s3 import Fault, FaultyS3, Record
from tests.support.faulty_s3.environment import FOREIGN, client_environment
from tests.support.faulty_s3.signature import Credentials
from tests.support.web_server import Asked, Reply, web_server

from bloomery.checkpoints.source import ChangedError, Connection, Entry, TransientError, UnreachableError
from bloomery.checkpoints.sources import manifest
from bloomery.checkpoints.sources.manifest import Listed
from bloomery.checkpoints.sources.reading import read_bytes
from bloomery.checkpoints.sources.s3 import Address, S3Source
from bloomery.checkpoints.sources.s3_access import REQUESTER_PAYS, UNSIGNED, S3Access
from bloomery.checkpoints.sources.s3_errors import Refusal, refused
from bloomery.checkpoints.wire.transport import Transport
from bloomery.errors import CheckpointError

WEIGHTS = bytes(range(256)) * 4096
FAST = Transport(stall_timeout=0.4)
ACCESS_POINT = "arn:aws:s3:eu-west-1:123456789012:accesspoint/mine"
IDENTITY = b"""<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult>
<Arn>arn:aws:iam::123456789012:user/ada</Arn><UserId>x</UserId><Account>123456789012</Account>
</GetCallerIdentityResult></GetCallerIdentityResponse>"""


@pytest.fixture
def s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """A server with one model, s3://bucket/model."""
    model = tmp_path / "bucket" / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_bytes(b"{}")
    (model / "model.safetensors").write_bytes(WEIGHTS)
    (model / "empty.txt").touch()
    for name in (*FOREIGN, "AWS_REQUEST_PAYER", "AWS_NO_SIGN_REQUEST"):
        monkeypatch.delenv(name, raising=False)
    with FaultyS3(tmp_path) as server:
        for name, value in client_environment(server.url).items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def renewed(s3: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """The credentials are in a file that another program keeps fresh; calling this is what it does."""
    s3.credentials = Credentials({"old": "secret of old", "new": "secret of new"})
    file = tmp_path / "credentials"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))

    def write(key: str) -> None:
        file.write_text(f"[default]\naws_access_key_id={key}\naws_secret_access_key=secret of {key}\n")

    write("old")
    return lambda: write("new")


@pytest.fixture
def source(s3: FaultyS3) -> S3Source:
    return S3Source("s3://bucket/model", transport=FAST)


@pytest.fixture
def weights(source: S3Source) -> Entry:
    return next(entry for entry in source.entries() if entry.name == "model.safetensors")


@pytest.fixture
def connection(source: S3Source) -> Iterator[Connection]:
    connection = source.connect()
    yield connection
    connection.close()


def once(connection: Connection, entry: Entry, start: int = 0, length: int | None = None) -> bytes:
    """What one attempt brings."""
    length = entry.size if length is None else length
    data = bytearray(length)
    left = memoryview(data)
    with connection.read(entry, start, length) as body:
        while count := body.readinto(left):
            left = left[count:]
    return bytes(data[: length - len(left)])


def answered(s3: FaultyS3, operation: str, count: int) -> list[Record]:
    """The first ``count`` requests for ``operation``, or more: the server notes one after it has sent the answer."""
    end = time.monotonic() + 30
    while True:
        found = [record for record in s3.requests() if record.operation == operation]
        if len(found) >= count or time.monotonic() > end:
            return found
        time.sleep(0.005)


class TestListing:
    def test_a_prefix_is_its_objects(self, source: S3Source) -> None:
        assert [(entry.name, entry.size) for entry in source.entries()] == [
            ("config.json", 2),
            ("empty.txt", 0),
            ("model.safetensors", len(WEIGHTS)),
        ]

    def test_one_object_may_be_named(self, s3: FaultyS3) -> None:
        source = S3Source("s3://bucket/model/config.json")
        entry = source.entries()[0]
        assert entry.name == "config.json"
        with closing(source.connect()) as connection:
            assert read_bytes(connection, entry) == b"{}"

    def test_s3s_checksum_of_the_whole_object_is_known(self, source: S3Source) -> None:
        known = {entry.name: entry.crc64nvme for entry in source.checksummed(source.entries())}
        assert known["model.safetensors"] == crc64nvme(WEIGHTS)

    def test_pages_are_followed(self, s3: FaultyS3, tmp_path: Path) -> None:
        many = tmp_path / "bucket" / "many"
        many.mkdir()
        for number in range(1100):
            (many / f"{number:04}.txt").touch()
        assert len(S3Source("s3://bucket/many").entries()) == 1100

    def test_keys_may_hold_any_character(self, s3: FaultyS3) -> None:
        name = "a b+c%20?#&=~'(ü).json"
        s3.objects.put("bucket", f"odd/{name}", b"odd", {})
        source = S3Source("s3://bucket/odd/")
        with closing(source.connect()) as connection:
            assert {entry.name: read_bytes(connection, entry) for entry in source.entries()} == {name: b"odd"}

    def test_the_whole_bucket_may_be_the_checkpoint(self, s3: FaultyS3) -> None:
        assert next(entry.name for entry in S3Source("s3://bucket").entries()) == "model/config.json"

    def test_the_licence_is_the_model_cards(self, s3: FaultyS3, tmp_path: Path, source: S3Source) -> None:
        assert source.licence is None
        (tmp_path / "bucket" / "model" / "README.md").write_bytes(b"---\nlicense: mit\n---\n")
        assert S3Source("s3://bucket/model").licence == "mit"

    def test_what_s3_has_no_checksum_of_a_manifest_may_have(self, s3: FaultyS3, tmp_path: Path) -> None:
        plain = tmp_path / "plain"
        (plain / "bucket" / "model").mkdir(parents=True)
        (plain / "bucket" / "model" / "a.json").write_bytes(b"abc")
        (plain / "bucket" / "model" / "b.json").write_bytes(b"abc")
        listed = {"a.json": Listed(3, 5, "0" * 64), "b.json": Listed(4, 5, None)}
        (plain / "bucket" / "model" / manifest.NAME).write_bytes(manifest.written(listed))
        with FaultyS3(plain, with_checksums=False) as server, pytest.MonkeyPatch.context() as patched:
            patched.setenv("AWS_ENDPOINT_URL", server.url)
            source = S3Source("s3://bucket/model")
            found = {entry.name: entry for entry in source.checksummed(source.entries())}
        assert (found["a.json"].crc64nvme, found["a.json"].sha256) == (5, "0" * 64)
        assert found["b.json"].crc64nvme is None  # it was written for other content

    def test_only_wanted_files_are_asked_for_their_checksums(self, s3: FaultyS3, source: S3Source) -> None:
        entries = source.entries()
        source.checksummed(entries[:1])
        assert [record.key for record in answered(s3, "HeadObject", 1)] == ["model/config.json"]


class TestWhatIsNotThere:
    def test_a_folder_that_is_misspelt_is_found(self, s3: FaultyS3) -> None:
        with pytest.raises(
            CheckpointError, match=r"s3://bucket/modle is neither a folder .*: did you mean s3://bucket/model/\?$"
        ):
            S3Source("s3://bucket/modle").entries()

    def test_a_folder_that_is_like_no_other_is_said(self, s3: FaultyS3) -> None:
        with pytest.raises(CheckpointError, match=r"holds no objects: check the bucket .*\(aws s3 ls s3://bucket/\)"):
            S3Source("s3://bucket/xyzzy/").entries()

    def test_a_bucket(self, s3: FaultyS3) -> None:
        with pytest.raises(CheckpointError, match="the bucket no-such-bucket does not exist: check its name"):
            S3Source("s3://no-such-bucket/model").entries()

    def test_an_object_that_has_gone(self, connection: Connection, weights: Entry, tmp_path: Path) -> None:
        (tmp_path / "bucket" / "model" / "model.safetensors").unlink()
        with pytest.raises(ChangedError, match=r"model\.safetensors, bytes 0-9: the object is gone"):
            once(connection, weights, 0, 10)

    def test_an_endpoint(self, s3: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        with pytest.raises(UnreachableError, match="the S3 endpoint cannot be reached: check the network"):
            S3Source("s3://bucket/model").entries()


class TestPatience:
    def test_a_listing_survives_a_burst(self, s3: FaultyS3, source: S3Source) -> None:
        s3.inject(Fault("error", operation="ListObjectsV2", times=4), Fault("error", operation="HeadObject", times=4))
        assert len(source.checksummed(source.entries())) == 3

    def test_a_listing_that_stalls_is_given_up(self, s3: FaultyS3) -> None:
        s3.inject(Fault("stall", operation="ListObjectsV2"))
        began = time.monotonic()
        with pytest.raises(UnreachableError, match="the S3 endpoint cannot be reached"):
            S3Source("s3://bucket/model", transport=Transport(stall_timeout=0.2)).entries()
        assert time.monotonic() - began < 20

    def test_an_expired_key_is_read_anew_for_a_listing_too(self, s3: FaultyS3, renewed: Callable[[], None]) -> None:
        source = S3Source("s3://bucket/model")
        source.entries()
        s3.inject(Fault("expire", operation="ListObjectsV2", times=1))
        renewed()
        assert len(source.entries()) == 3


class TestReading:
    def test_a_range_is_read_into_memory(self, connection: Connection, weights: Entry) -> None:
        assert once(connection, weights, 1000, 50_000) == WEIGHTS[1000:51_000]

    def test_ranges_come_over_one_connection(self, connection: Connection, weights: Entry) -> None:
        for start in range(0, 100_000, 10_000):
            assert once(connection, weights, start, 10_000) == WEIGHTS[start : start + 10_000]
        assert connection._http._channel is not None  # type: ignore[attr-defined]

    def test_an_empty_object_needs_no_request(self, s3: FaultyS3, source: S3Source, connection: Connection) -> None:
        empty = next(entry for entry in source.entries() if not entry.size)
        assert once(connection, empty) == b""
        assert answered(s3, "GetObject", 0) == []

    @pytest.mark.parametrize(
        ("fault", "message"),
        [
            (Fault("reset", after_bytes=5000), "after 5000 of 1048576 bytes: Connection reset by peer"),
            (Fault("reset"), "Connection reset by peer"),
            (Fault("truncate", after_bytes=5000), "after 5000 of 1048576 bytes: the connection was closed too early"),
            (Fault("stall", after_bytes=5000), r"after 5000 of 1048576 bytes: no byte came for 0\.4 s"),
            (Fault("stall"), r"no byte came for 0\.4 s"),
            (Fault("error"), "S3 answered 503 SlowDown"),
            (Fault("error", status=500, code="InternalError"), "S3 answered 500 InternalError"),
        ],
    )
    def test_what_may_pass_is_transient_and_names_object_and_range(
        self, s3: FaultyS3, connection: Connection, weights: Entry, fault: Fault, message: str
    ) -> None:
        s3.inject(fault)
        began = time.monotonic()
        with pytest.raises(TransientError, match=r"^s3://bucket/model/model.safetensors, bytes 0-1048575: " + message):
            once(connection, weights)
        assert time.monotonic() - began < 10
        s3.heal()
        assert once(connection, weights) == WEIGHTS

    def test_a_wish_for_rest_is_told(self, s3: FaultyS3, connection: Connection, weights: Entry) -> None:
        s3.inject(Fault("error", retry_after=7))
        with pytest.raises(TransientError) as caught:
            once(connection, weights)
        assert (caught.value.slow_down, caught.value.after) == (True, 7)

    def test_a_replaced_object_is_noticed(self, s3: FaultyS3, connection: Connection, weights: Entry) -> None:
        s3.inject(Fault("replace", times=1))
        once(connection, weights, 0, 100)
        with pytest.raises(ChangedError, match=r"model\.safetensors, bytes 100-199: the object was replaced"):
            once(connection, weights, 100, 100)

    def test_a_cut_object_is_noticed(self, s3: FaultyS3, connection: Connection, weights: Entry) -> None:
        s3.inject(Fault("error", status=416, code="InvalidRange"))
        with pytest.raises(ChangedError, match="the object is shorter than it was"):
            once(connection, weights)


class TestRegions:
    @pytest.mark.parametrize("status", [301, 400])
    def test_another_region_is_followed_once_for_all(
        self, s3: FaultyS3, source: S3Source, connection: Connection, weights: Entry, status: int
    ) -> None:
        s3.inject(Fault("wrong_region", region="eu-west-1", status=status))
        assert once(connection, weights, 5, 5) == WEIGHTS[5:10]
        with closing(source.connect()) as other:
            assert once(other, weights, 5, 5) == WEIGHTS[5:10]
        assert [record.status for record in answered(s3, "GetObject", 3)] == [status, 206, 206]

    def test_another_region_is_followed_when_it_lists(self, s3: FaultyS3) -> None:
        s3.inject(Fault("wrong_region", operation="*", region="eu-west-1", status=301))
        source = S3Source("s3://bucket/model")
        entry = source.entries()[0]
        with closing(source.connect()) as connection:
            assert once(connection, entry) == b"{}"

    def test_a_region_that_nobody_tells_is_said(self, s3: FaultyS3, connection: Connection, weights: Entry) -> None:
        s3.inject(Fault("error", status=301, code="PermanentRedirect"))
        with pytest.raises(CheckpointError, match="the bucket bucket is in another region: set AWS_REGION"):
            once(connection, weights)


class TestCredentials:
    def test_that_have_expired_are_said(self, s3: FaultyS3, connection: Connection, weights: Entry) -> None:
        s3.inject(Fault("expire"))
        with pytest.raises(CheckpointError, match="the session token has expired: get new credentials"):
            once(connection, weights)

    def test_that_have_expired_are_read_anew(self, s3: FaultyS3, renewed: Callable[[], None]) -> None:
        source = S3Source("s3://bucket/model")
        entry = source.entries()[0]
        s3.inject(Fault("expire", times=1))
        renewed()
        with closing(source.connect()) as first, closing(source.connect()) as other:
            assert once(first, entry) == b"{}"
            assert once(other, entry) == b"{}"
        assert [record.status for record in answered(s3, "GetObject", 3)] == [400, 206, 206]

    def test_that_are_not_there(self, s3: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        with pytest.raises(
            CheckpointError, match=r"no AWS credentials were found: give .* role, or set AWS_ACCESS_KEY_ID"
        ):
            S3Source("s3://bucket/model").entries()

    def test_that_nobody_needs(self, tmp_path: Path, s3: FaultyS3, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        with FaultyS3(tmp_path, checks_signatures=False) as public:
            monkeypatch.setenv("AWS_ENDPOINT_URL", public.url)
            monkeypatch.setenv(UNSIGNED, "true")
            source = S3Source("s3://bucket/model")
            with closing(source.connect()) as connection:
                assert once(connection, source.entries()[0]) == b"{}"

    @pytest.mark.parametrize(
        ("variable", "value", "message"),
        [
            ("AWS_ACCESS_KEY_ID", "other", "the access key is unknown: check AWS_ACCESS_KEY_ID"),
            ("AWS_SECRET_ACCESS_KEY", "other", "the secret key does not fit the access key"),
            ("AWS_PROFILE", "nobodys", "AWS_PROFILE names a profile that is in no configuration file"),
        ],
    )
    def test_that_are_wrong(
        self, s3: FaultyS3, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
    ) -> None:
        monkeypatch.setenv(variable, value)
        with pytest.raises(CheckpointError, match=f"^s3://bucket/model could not be fetched: {message}"):
            S3Source("s3://bucket/model").entries()


class TestRefusals:
    def test_who_may_not_list_may_read_the_object_it_names(self, s3: FaultyS3) -> None:
        s3.inject(Fault.denied("ListObjectsV2"))
        source = S3Source("s3://bucket/model/config.json")
        with closing(source.connect()) as connection:
            assert once(connection, source.entries()[0]) == b"{}"

    @pytest.mark.parametrize(
        ("status", "code", "message"),
        [
            (403, "RequestTimeTooSkewed", "this machine's clock is wrong"),
            (403, "InvalidObjectState", "the object is archived (Glacier): restore it first"),
            (400, "InvalidToken", "the session token is not valid: check AWS_SESSION_TOKEN"),
            (418, "Teapot", "could not be fetched: S3 answered 418 Teapot: Teapot: a test wants it so"),
        ],
    )
    def test_what_is_final_says_what_to_do(
        self, s3: FaultyS3, connection: Connection, weights: Entry, status: int, code: str, message: str
    ) -> None:
        s3.inject(Fault("error", status=status, code=code))
        with pytest.raises(CheckpointError, match=re.escape(message)) as caught:
            once(connection, weights)
        assert not isinstance(caught.value, (TransientError, ChangedError))
        assert str(caught.value).startswith("s3://bucket/model/model.safetensors, bytes 0-1048575 ")

    def test_access_that_is_denied_names_the_principal(self, monkeypatch: pytest.MonkeyPatch, s3: FaultyS3) -> None:
        def reply(asked: Asked) -> Reply:
            if asked.path == "/":  # STS: GetCallerIdentity
                return Reply(200, IDENTITY)
            return Reply(403, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")

        with web_server(reply) as server:
            monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
            with pytest.raises(CheckpointError) as caught:
                S3Source("s3://bucket/model").entries()
        assert (
            "access is denied to arn:aws:iam::123456789012:user/ada: the role or key needs s3:ListBucket on bucket and "
            "s3:GetObject on bucket/*" in str(caught.value)
        )

    def test_a_principal_that_the_answer_names_is_not_asked_for(self) -> None:
        message = (
            "User: arn:aws:sts::123456789012:assumed-role/serving/i-1 is not authorized to perform: kms:Decrypt on "
            "resource: arn:aws:kms:eu-west-1:123456789012:key/1"
        )
        error = refused(Refusal(403, "AccessDenied", message), "s3://b/k", "b", principal=lambda: pytest.fail("asked"))
        assert "denied to arn:aws:sts::123456789012:assumed-role/serving/i-1: the objects are encrypted" in str(error)

    def test_a_proxys_page_is_no_answer_of_s3(self) -> None:
        refusal = Refusal.read(502, "Bad Gateway", {}, b"<!DOCTYPE html><html>")
        assert isinstance(refused(refusal, "s3://b/k", "b", lambda: None), TransientError)


class TestAddresses:
    @pytest.mark.parametrize(
        ("uri", "address"),
        [
            ("s3://b/opt/30b/", Address("b", "opt/30b", True)),
            ("s3://b/opt", Address("b", "opt", False)),
            ("s3://b", Address("b", "", True)),
            (f"s3://{ACCESS_POINT}/opt/", Address(ACCESS_POINT, "opt", True)),
            (f"s3://{ACCESS_POINT}", Address(ACCESS_POINT, "", True)),
        ],
    )
    def test_a_bucket_and_a_prefix(self, uri: str, address: Address) -> None:
        assert Address.of(uri) == address

    @pytest.mark.parametrize(
        ("bucket", "url"),
        [
            ("bucket", "https://bucket.s3.eu-west-1.amazonaws.com/k%20k"),
            ("with.dots", "https://s3.eu-west-1.amazonaws.com/with.dots/k%20k"),
            (ACCESS_POINT, "https://mine-123456789012.s3-accesspoint.eu-west-1.amazonaws.com/k%20k"),
            ("mine-abc-s3alias", "https://mine-abc-s3alias.s3.eu-west-1.amazonaws.com/k%20k"),
            (
                "arn:aws:s3::123456789012:accesspoint/mine.mrap",
                "https://mine.mrap.accesspoint.s3-global.amazonaws.com/k%20k",
            ),
        ],
    )
    def test_requests_go_where_botocore_says(self, aws_itself: None, bucket: str, url: str) -> None:
        signed = S3Access(bucket).get("k k", '"etag"', "bytes=0-9")
        assert signed.url == url
        assert (signed.headers["Range"], signed.headers["If-Match"]) == ("bytes=0-9", '"etag"')
        assert "Signature=" in signed.headers["Authorization"]

    def test_the_addressing_style_is_configured_as_for_every_aws_tool(
        self, aws_itself: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "config").write_text("[default]\ns3 =\n  addressing_style = path\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        assert S3Access("bucket").get("k", "e", "bytes=0-9").url == "https://s3.eu-west-1.amazonaws.com/bucket/k"

    def test_s3_may_have_an_endpoint_of_its_own(self, aws_itself: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:2/base")
        assert S3Access("bucket").get("k", "e", "bytes=0-9").url == "http://127.0.0.1:2/base/bucket/k"

    def test_who_reads_may_pay(self, aws_itself: None) -> None:
        for access in (
            S3Access("bucket", requester_pays=True),
            S3Access("bucket", environment={REQUESTER_PAYS: "requester"}),
        ):
            assert access.get("k", "e", "bytes=0-9").headers["x-amz-request-payer"] == "requester"
        assert "x-amz-request-payer" not in S3Access("bucket", environment={}).get("k", "e", "bytes=0-9").headers

    @pytest.fixture
    def aws_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Credentials and a region, and no endpoint; nothing here is sent."""
        for name in FOREIGN:
            monkeypatch.delenv(name, raising=False)
        for name, value in {
            **client_environment(""),
            "AWS_REGION": "eu-west-1",
            "AWS_DEFAULT_REGION": "eu-west-1",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("AWS_ENDPOINT_URL")


def test_certificates_are_those_of_awss_configuration(
    s3: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = make_certificate(tmp_path)
    (tmp_path / "config").write_text(f"[default]\nca_bundle = {certificate[0]}\n")
    with FaultyS3(tmp_path, certificate=certificate) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        source = S3Source("s3://bucket/model")
        entry = next(entry for entry in source.entries() if entry.name == "model.safetensors")
        with closing(source.connect()) as connection, closing(source.access):
            assert once(connection, entry) == WEIGHTS
