"""Which Docker Engine is meant: the policy's `host` or `context`, else what the `docker` command would use.

Contexts are read where `docker context` keeps them: `config.json` for the current one, `contexts/meta/<sha256 of its
name>/meta.json` for its address, `contexts/tls/<the same>/docker/` for its files
(https://docs.docker.com/engine/manage-resources/contexts/).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vaultkeeper.errors import ConfigurationInvalid, NotFound
from vaultkeeper.ports import Credentials

DEFAULT_URL = "unix:///var/run/docker.sock"
SURROUNDINGS = {"docker": "vaultkeeper"}
"""The reference that `wiring` resolves to what the environment says of Docker; see `find`."""

Files = tuple[str | None, str | None, str | None]
"""ca, cert and key; PEM."""

_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Endpoint:
    """Where the Engine listens. `tls` None: no TLS."""

    url: str
    tls: Files | None = None
    ssh_environment: Mapping[str, str] = field(default_factory=dict)  #: the agent, for ssh://

    @property
    def environment(self) -> Mapping[str, str]:
        """What leads the `docker` command here."""
        said = {"DOCKER_HOST": self.url, **self.ssh_environment}
        ca = self.tls[0] if self.tls else None
        if ca:  # the command wants the three files side by side, under their usual names
            said |= {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": os.path.dirname(ca)}
        return said


def find(host: str | None, context: str | None, tls: Files | None, credentials: Credentials) -> Endpoint:
    """What the policy says, else DOCKER_HOST, else DOCKER_CONTEXT, else the current context, else the usual socket.

    Raises ConfigurationInvalid for a context that does not exist or skips TLS verification.
    """
    around = _surroundings(credentials)
    agent = {"SSH_AUTH_SOCK": around["ssh_auth_sock"]} if "ssh_auth_sock" in around else {}
    if host:
        return Endpoint(host, tls, agent)
    if not context and "host" in around:
        return Endpoint(around["host"], tls or _verified(around), agent)
    config = around.get("config", "")
    name = context or around.get("context") or _current(config)
    if not name or name == "default":
        return Endpoint(DEFAULT_URL, tls, agent)
    url, own = _context(config, name)
    return Endpoint(url, tls or own, agent)


def _surroundings(credentials: Credentials) -> dict[str, str]:
    """`host`, `context`, `config`, `tls_verify`, `cert_path`, `ssh_auth_sock`: those that the environment sets."""
    try:
        return {name: value.text() for name, value in credentials.resolve(SURROUNDINGS).items()}
    except NotFound:
        return {}


def _verified(around: Mapping[str, str]) -> Files | None:
    if "tls_verify" not in around:
        return None
    folder = around.get("cert_path") or around.get("config", "")
    return _files(folder)


def _files(folder: str) -> Files:
    ca, cert, key = (path if os.path.exists(path := os.path.join(folder, f"{n}.pem")) else None for n in _NAMES)
    return ca, cert, key


_NAMES = ("ca", "cert", "key")


def _current(config: str) -> str:
    found = _json(os.path.join(config, "config.json")) if config else None
    return str(found.get("currentContext", "")) if isinstance(found, dict) else ""


def _context(config: str, name: str) -> tuple[str, Files | None]:
    digest = hashlib.sha256(name.encode()).hexdigest()
    meta = _json(os.path.join(config, "contexts", "meta", digest, "meta.json"))
    if not isinstance(meta, dict):
        raise ConfigurationInvalid(
            f"there is no docker context {name!r} in {config or 'nowhere'}", next="docker context ls"
        )
    docker: Any = (meta.get("Endpoints") or {}).get("docker") or {}
    url = str(docker.get("Host", "")) or DEFAULT_URL
    if docker.get("SkipTLSVerify"):
        raise ConfigurationInvalid(
            f"the docker context {name!r} skips TLS verification",
            next="make it again with its CA, or give `tls: {ca: …}`",
        )
    folder = os.path.join(config, "contexts", "tls", digest, "docker")
    return url, _files(folder) if os.path.isdir(folder) else None


def _json(path: str) -> Any:
    try:
        with open(path, "rb") as file:
            return json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError):
        return None
