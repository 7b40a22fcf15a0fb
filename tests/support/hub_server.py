"""A small model hub for tests: the part of a hub's HTTP interface that reading a model needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.support.web_server import Asked, Reply

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ORGANISATION_MODEL = "org/name"


@dataclass
class Hub:
    """Has the model org/name at one commit; its branch is main, and it is gated at org/gated.

    ``large``: files behind a redirect to a signed address, as a hub keeps what is in LFS or Xet; ``with_sizes``:
    whether the listing tells sizes; ``storage``: the address of another server that has the large files. ``signature``
    is what signed addresses end with at the moment.
    """

    files: Mapping[str, bytes]
    large: frozenset[str] = frozenset({"model.safetensors"})
    with_sizes: bool = True
    storage: str = ""
    signature: str = "1"
    token: str | None = None
    is_gated: bool = False  # anybody may list the files, and read none
    card: Mapping[str, object] = field(default_factory=dict)

    def __call__(self, asked: Asked) -> Reply:
        """The answer to a request."""
        path, _, query = asked.path.partition("?")
        if path.startswith("/storage/"):
            return Reply(200, self.files[path.removeprefix("/storage/")]) if query == self.signature else Reply(403)
        if path.startswith("/api/models/org/gated"):
            return Reply(403, b"{}", {"X-Error-Code": "GatedRepo"})
        if self.token is not None and asked.headers.get("authorization") != f"Bearer {self.token}":
            return Reply(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        if path in ("/api/models/org/name", *(f"/api/models/org/name/revision/{name}" for name in ("main", COMMIT))):
            return Reply(200, json.dumps(self._info()).encode(), {"Content-Type": "application/json"})
        if path.startswith("/api/models/org/name/revision/"):
            return Reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if path.startswith(f"/org/name/resolve/{COMMIT}/") and self.is_gated:
            return Reply(401, b"restricted", {"X-Error-Code": "GatedRepo"})
        if path.startswith(f"/org/name/resolve/{COMMIT}/"):
            return self._resolved(path.removeprefix(f"/org/name/resolve/{COMMIT}/"))
        return Reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _info(self) -> dict[str, object]:
        return {
            "id": ORGANISATION_MODEL,
            "sha": COMMIT,
            "siblings": [self._sibling(name, data) for name, data in self.files.items()],
            "cardData": dict(self.card),
        }

    def _sibling(self, name: str, data: bytes) -> dict[str, object]:
        row: dict[str, object] = {"rfilename": name, "blobId": hashlib.sha1(data).hexdigest()}
        if self.with_sizes:
            row["size"] = len(data)
        if name in self.large:
            row["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        return row

    def _resolved(self, name: str) -> Reply:
        if name not in self.files:
            return Reply(404, headers={"X-Error-Code": "EntryNotFound"})
        headers = {"ETag": f'"{hashlib.sha1(self.files[name]).hexdigest()}"', "X-Repo-Commit": COMMIT}
        if name not in self.large:
            return Reply(200, self.files[name], headers)
        return Reply(302, headers={**headers, "Location": f"{self.storage}/storage/{name}?{self.signature}"})
