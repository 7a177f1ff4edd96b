"""hvac's requests, sent by our own transport: hvac brings paths and documents, `access/http.py` the connection.

hvac's own adapter follows redirects with the token (and turns a POST into a GET on the way), takes proxies, netrc and
`VAULT_*` from the environment, and bounds each read instead of the call. None of that happens here, and nothing that
the server said reaches an exception.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from hvac.adapters import Adapter

from vaultkeeper.access import http
from vaultkeeper.access.settings import host_of
from vaultkeeper.access.vault import errors as vault_errors
from vaultkeeper.access.vault.settings import VaultSettings
from vaultkeeper.ports import Deadline

LIMIT_BYTES = 4 << 20  # a secret of 1 MiB, spelt in JSON


class Transport(Adapter):  # type: ignore[misc]  # hvac ships no types
    """One server, one token. Every request ends by `deadline`. Raises VaultError, and ConfigurationInvalid."""

    def __init__(self, settings: VaultSettings) -> None:
        super().__init__(base_uri=settings.url, token="", namespace=settings.namespace, session=_Unused())
        self._channel = http.Channel(plain_ok=settings.tls == "off", ca_file=settings.ca)
        self.deadline = Deadline(0.0)
        self.seen: dict[
            tuple[str, str], tuple[float, object]
        ] = {}  #: what was read last, and when; see `vault_kv.recent`

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        raise_exception: bool = True,  # noqa: FBT001, FBT002 - hvac's signature
        **given: Any,
    ) -> Mapping[str, Any]:
        """The JSON document of the answer, empty where there is none."""
        del raise_exception
        sent = {"X-Vault-Request": "true", **(headers or {})}
        if self.token:
            sent["X-Vault-Token"] = self.token
        if self.namespace:
            sent["X-Vault-Namespace"] = self.namespace
        content = None
        if given.get("json") is not None:
            content = json.dumps(given["json"]).encode()
            sent.setdefault("Content-Type", "application/json")
        query = urlencode(given.get("params") or {})
        address = self.base_uri + url + (f"?{query}" if query else "")
        where = f"{host_of(self.base_uri)}{url}"
        try:
            reply = self._channel.call(
                method.upper(), address, self.deadline, headers=sent, content=content, limit_bytes=LIMIT_BYTES
            )
        except http.HttpError as error:
            self._channel.close()
            raise vault_errors.Unanswered(error.what) from None
        return vault_errors.judge(reply.status, reply.body, where, limit_bytes=LIMIT_BYTES)

    def get_login_token(self, response: Mapping[str, Any]) -> str:
        return str(response["auth"]["client_token"])

    def close(self) -> None:
        self._channel.close()


class _Unused:
    """Where hvac would keep a session of `requests`, which reads the environment."""

    verify = cert = proxies = None
