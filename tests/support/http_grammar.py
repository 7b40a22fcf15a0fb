"""HTTP requests for hypothesis: framed as HTTP says, with anything in them; and damage to their bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass

from hypothesis import strategies as st

_METHODS = st.sampled_from(b"GET POST PUT DELETE PATCH HEAD OPTIONS TRACE CONNECT".split())
_PATHS = st.sampled_from(
    b"/v1/chat/completions /v1/completions /v1/models /v1/models/x /metrics /server/metrics /openapi.json /adapters "
    b"/workflows /workflows/laboratory /models/laboratory/adapters /models/laboratory/adapters/a /server/logging /v2 "
    b"/v2/models/laboratory /v2/models/laboratory/infer /v2/health/ready /models/laboratory/1 "
    b"/invocations /invocations/a/b /invocations#x /predictions/laboratory /predictions/laboratory/1 /predictions/%00 "
    b"/predictions/%ff%fe /predictions/a%2fb /models /models/laboratory /models/laboratory/invoke /models/%2e%2e / // "
    b"* /ping http://other/ping /../../etc/passwd".split()
)
_OCTETS = st.binary(max_size=60)
_PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40).map(str.encode)
_QUERIES = st.one_of(
    st.just(b""),
    _PRINTABLE.map(lambda text: b"?" + text.replace(b"#", b"%23")),
    st.sampled_from(b"?data= ?model_name=%ff ?model_name= ?limit=-1 ?limit=%D9%A1 ?a=% ?&&=;".split()),
    st.integers(1, 9000).map(lambda count: b"?q=" + b"a" * count),
)
_NAMES = st.sampled_from(
    b"Content-Type Content-Encoding Accept Connection Upgrade Range Cookie X-Amzn-SageMaker-Custom-Attributes TE "
    b"x-request-id x-bloomery-seed handler model_name batch_size request_tracking_id x-synchronous x-starting-token "
    b"Trailer Authorization Origin".split()
)
_VALUES = st.one_of(
    _PRINTABLE,
    st.sampled_from(
        b"close websocket h2c gzip br deflate identity zstd multipart/form-data text/plain ;;/ -1 tensor/ndlist "
        b"application/x-www-form-urlencoded \xff\xfe a=1;b=2;flag ;;;=;=x handler=other x-bloomery-events=1 "
        b"\xff=\xfe".split()
    ),
    st.sampled_from(
        [
            b"keep-alive, x",
            b"application/json; charset=nonsense",
            b"multipart/form-data; boundary=",
            b"multipart/form-data; boundary=B",
            b"multipart/mixed; boundary=B",
            b'multipart/form-data; boundary="%s"' % (b"B" * 200),
            b"\tx\t",
        ]
    ),
    st.integers(1, 8000).map(lambda count: b"v" * count),
)
_MULTIPART = st.lists(
    st.sampled_from(
        [
            b"--B\r\n",
            b"--B--\r\n",
            b"--C\r\n",
            b"\r\n",
            b'Content-Disposition: form-data; name="a"\r\n',
            b'Content-Disposition: form-data; name="\xff"\r\n',
            b"Content-Disposition: x\r\n",
            b"Content-Transfer-Encoding: base64\r\n",
            b"Content-Encoding: gzip\r\n",
            b"Content-Type: multipart/mixed; boundary=C\r\n",
            b"Nonsense\r\n",
            b"value",
            b"\xff\x00",
        ]
    ),
    max_size=12,
).map(b"".join)
_FORMS = st.lists(st.sampled_from(b"a = & % %ff %00 + data \xff model_name".split())).map(b"".join)
_DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
).map(lambda document: json.dumps(document).encode())
_LARGE = st.integers(1, 2**17).map(lambda count: b"x" * count)
_BODIES = st.one_of(st.just(b""), _OCTETS, _MULTIPART, _FORMS, _DOCUMENTS, _LARGE)
_FITTING = st.sampled_from(
    [
        (b"Content-Type", b"multipart/form-data; boundary=B", _MULTIPART),
        (b"Content-Type", b"application/x-www-form-urlencoded", _FORMS),
        (b"Content-Type", b"application/json", _DOCUMENTS),
        (b"Content-Type", b"tensor/npz", _OCTETS),
        *((b"Content-Encoding", coding, _OCTETS) for coding in (b"gzip", b"deflate", b"br", b"zstd")),
    ]
)


@dataclass(frozen=True)
class Sent:
    """A request whose end is where HTTP says that it is, whatever stands in it."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    chunks: list[int] | None  # lengths of the pieces of a chunked body

    def head(self) -> bytes:
        """Up to the empty line."""
        framing = (b"Content-Length", b"%d" % len(self.body))
        if self.chunks is not None:
            framing = (b"Transfer-Encoding", b"chunked")
        lines = [name + b": " + value for name, value in [(b"Host", b"x"), *self.headers, framing]]
        return b"%s %s HTTP/1.1\r\n%s\r\n\r\n" % (self.method, self.target, b"\r\n".join(lines))

    def payload(self) -> bytes:
        """What follows it."""
        if self.chunks is None:
            return self.body
        out, rest = b"", self.body
        for length in [*self.chunks, len(self.body)]:
            piece, rest = rest[:length], rest[length:]
            out += b"%x;extension=1\r\n%s\r\n" % (len(piece), piece) if piece else b""
        return out + b"0\r\nX-Trailer: 1\r\n\r\n"


@st.composite
def requests(draw: st.DrawFn) -> Sent:
    """Any request."""
    headers = draw(st.lists(st.tuples(_NAMES, _VALUES), max_size=5))
    body = draw(_BODIES)
    if draw(st.booleans()):
        name, value, fitting = draw(_FITTING)
        headers.append((name, value))
        body = draw(fitting)
    chunks = draw(st.none() | st.lists(st.integers(1, 5000), max_size=4))
    return Sent(draw(_METHODS), draw(_PATHS) + draw(_QUERIES), headers, body, chunks)


_NOISE = [b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\x00", b" ", b"\t", b":", b"\xff", b"HTTP/9", b"\r\n folded"]


@st.composite
def damage(draw: st.DrawFn, data: bytes) -> bytes:
    """``data`` with a few places cut out, overwritten, doubled or filled with noise."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.sampled_from([0, 1, 4, 30])))
        noise = draw(st.sampled_from(_NOISE) | st.binary(max_size=4))
        data = data[:start] + draw(st.sampled_from([noise, b"", data[start:end] * 2])) + data[end:]
    return data


def damaged_requests() -> st.SearchStrategy[tuple[bytes, bytes]]:
    """The method of a request, and its damaged bytes."""
    return requests().flatmap(lambda sent: st.tuples(st.just(sent.method), damage(sent.head() + sent.payload())))
