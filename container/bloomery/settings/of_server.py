"""The server's own settings, from every source that speaks of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bloomery.errors import ConfigurationError
from bloomery.settings import table
from bloomery.settings.address import Address, read_port
from bloomery.settings.explained import Explained, overridden, shown
from bloomery.settings.layers import Layer, merged
from bloomery.settings.server import ServerSettings
from bloomery.settings.server_table import KEYSTORES, SERVER


def read(
    command: Layer, weaker: Sequence[Layer], environ: Mapping[str, str], host: str | None, port: int | None
) -> tuple[ServerSettings, list[Explained]]:
    """The settings and their explanation. ``host`` and ``port`` are those of the command line."""
    found = merged([command, *weaker])
    _refuse_keystores(found)
    values: dict[str, Any] = {row.field: table.parse(row, found[row.key]) for row in SERVER if row.key in found}
    stated = found.get("inference_address")
    bound = environ.get("SAGEMAKER_BIND_TO_PORT", "").strip() if "inference_address" not in command else ""
    address, origins = values.get("inference_address", ServerSettings.inference_address), []
    if bound:
        address = _with(address, "environment SAGEMAKER_BIND_TO_PORT", port=bound)
        origins.append("port: environment SAGEMAKER_BIND_TO_PORT")
    if host is not None:
        address = _with(address, "command line --host", host=host)
        origins.append("host: command line --host")
    if port is not None:
        address = _with(address, "command line --port", port=str(port))
        origins.append("port: command line --port")
    values["inference_address"] = address
    server = _checked(ServerSettings(**values))
    rows = []
    for row in SERVER:
        each = found.get(row.key)
        origin = each.origin if each else "default"
        if row.key == "inference_address" and origins:
            origin = "; ".join([*([stated.origin] if stated else []), *origins])
        rows.append(Explained("server", row.key, shown(getattr(server, row.field)), origin, overridden(row.key, each)))
    return server, rows


def _with(address: Address, origin: str, host: str | None = None, port: str | None = None) -> Address:
    if address.scheme == "unix":
        raise ConfigurationError(f"{origin}: the server listens on {address}, which has no host and no port")
    if host is not None:
        return replace(address, host=host)
    return replace(address, port=read_port(port or "", origin))


def _checked(server: ServerSettings) -> ServerSettings:
    """Refuses what contradicts itself; a management address that is the inference address counts as none."""
    addresses = [server.inference_address, *([server.management_address] if server.management_address else [])]
    secure = next((each for each in addresses if each.scheme == "https"), None)
    if secure and not (server.certificate_file and server.private_key_file):
        raise ConfigurationError(
            f"{secure} needs certificate_file and private_key_file (PEM); none is made up here. For a trial: openssl "
            "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out certificate.pem -subj /CN=localhost"
        )
    if bool(server.certificate_file) != bool(server.private_key_file):
        raise ConfigurationError("certificate_file and private_key_file go together; one of them is missing")
    if server.management_address == server.inference_address and server.inference_address.port != 0:
        return replace(server, management_address=None)
    return server


def _refuse_keystores(found: Layer) -> None:
    stated = next((found[key] for key in KEYSTORES if key in found), None)
    if stated:
        raise ConfigurationError(
            f"{stated.origin}: Java's keystores are not read; write certificate_file and private_key_file (PEM), made "
            "with: openssl pkcs12 -in keystore.p12 -nodes -out both.pem"
        )
