"""What the tests of `mariadb` and `mysql` have in common: hooks called directly, with a hand-made context."""

from __future__ import annotations

import atexit
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tests.contract.found import REGISTRY
from tests.servers import TestAccount
from vaultkeeper.model.outcome import Finding, Login, Observation
from vaultkeeper.model.secret import SecretBytes, SecretVersion
from vaultkeeper.testing.contract.target import NOT_SETTINGS
from vaultkeeper.testing.contract.trial import Watch, version

ODD_NAMES = ("o'd", 'a"b', "per%cent", "at@home", "ünï ☂", "back\\slash", "`tick`")
A, R = Login.ACCEPTED, Login.REJECTED


@dataclass
class Hooks:
    """One account, its target, the version that works today and the next one."""

    account: TestAccount
    more: Mapping[str, object] = field(default_factory=dict)
    seconds: float = 20
    watch: Watch = field(default_factory=Watch)

    def __post_init__(self) -> None:
        self.watch.seconds = self.seconds
        settings = {k: v for k, v in {**self.account.settings, **self.more}.items() if k not in NOT_SETTINGS}
        kind = str(self.account.settings["kind"])
        # Any: powers beside the Protocol are called too
        self.target: Any = REGISTRY.target_class(kind).open(settings, 1)
        self.old = self.version(1, self.account.password, self.account.username)
        self.new = self.version(2)

    def version(self, number: int, password: str = "", name: str = "") -> SecretVersion:
        given = {"password": SecretBytes((password or secrets.token_urlsafe(18)).encode())}
        if name:
            given["username"] = SecretBytes(name.encode())
        current = None if number == 1 else self.old
        fields = self.target.complete(given, self.watch.context(current), adopting=bool(name))
        return version(number, fields, self.target.kind, self.account.settings)

    def context(self) -> Any:
        return self.watch.context(self.old, self.new)

    def set(self, accept: list[SecretVersion], refuse: list[SecretVersion]) -> Any:
        return self.target.set(accept, refuse, self.context())

    def introduce(self) -> Any:
        return self.set([self.new, self.old], [])

    def retire(self) -> Any:
        return self.set([self.new], [self.old])

    def logins(self, *versions: SecretVersion) -> list[Login]:
        return [self.target.test(one, self.context()) for one in versions or (self.old, self.new)]

    def seen(self) -> Observation:
        seen = self.target.observe([self.old, self.new], self.context())
        assert isinstance(seen, Observation), seen
        return seen

    def findings(self, level: str = "") -> list[Finding]:
        found = self.target.check(self.watch.context(self.old))
        return [one for one in found if level in ("", one.level)]


@cache
def _folder() -> Path:
    made = Path(tempfile.mkdtemp(prefix="vk-admins-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def admin(name: str, password: str) -> dict[str, object]:
    """For `admin:`; the file lives as long as the process."""
    file = _folder() / secrets.token_hex(8)
    file.write_text(password)
    return {"username": name, "password": {"file": str(file)}}


def value(of: SecretVersion) -> str:
    return of.fields["password"].text()
