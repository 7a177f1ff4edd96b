"""Somebody else's target, installed beside vaultkeeper, joins through its entry point and keeps the contract."""

from __future__ import annotations

import importlib
import secrets
import shutil
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from vaultkeeper.testing.contract import TargetContract
from vaultkeeper.testing.contract.trial import canary
from vaultkeeper.testing.servers import Account

PROJECT = Path(__file__).parent.parent / "data" / "third_party" / "acme"


def install(project: Path, into: Path) -> None:
    """What `pip install --no-deps --target` leaves behind, without a network: the modules and their metadata."""
    about = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    for module in project.glob("*.py"):
        shutil.copy(module, into)
    info = into / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n")
    groups = about["entry-points"]
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in kinds.items()) for group, kinds in groups.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))


@pytest.fixture(scope="class")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("site-packages")
    install(PROJECT, folder)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    yield folder
    sys.path.remove(str(folder))
    sys.modules.pop("acme_gateway", None)


@dataclass(frozen=True)
class GatewayUser:
    username: str
    password: str
    settings: Mapping[str, object] = field(default_factory=dict)


class Gateway:
    kind = "acme_gateway"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.write_text("stranger:kept")

    def account(self) -> GatewayUser:
        made = GatewayUser(f"user{secrets.token_hex(3)}", canary())
        self._add(made.username, made.password)
        return GatewayUser(made.username, made.password, {"path": str(self.path), "user": made.username})

    def foreign(self, account: Account) -> tuple[str, str]:
        self._add(account.username, "strangers-own")
        return account.username, "strangers-own"

    def login(self, username: str, password: str) -> bool:
        return f"{username}:{password}" in self.path.read_text().split("\n")

    def fault(self, name: str) -> AbstractContextManager[object]:
        return nullcontext()

    def stop(self) -> None:
        self.path.unlink(missing_ok=True)

    def _add(self, username: str, password: str) -> None:
        self.path.write_text(f"{username}:{password}\n{self.path.read_text()}")


class TestThirdParty(TargetContract):
    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def found(cls, installed: Path) -> None:  # noqa: ARG003 - asked for, for its effect
        from vaultkeeper.registry import Registry

        cls.target = Registry().target_class("acme_gateway")

    @pytest.fixture
    def server(self, tmp_path: Path) -> Gateway:
        return Gateway(tmp_path / "passwords")

    def test_it_was_found_where_it_was_installed(self, installed: Path) -> None:
        (entry,) = (point for point in entry_points(group="vaultkeeper.targets") if point.name == self.target.kind)
        assert entry.dist is not None
        assert entry.dist.name == "acme-vaultkeeper"
        assert sys.modules[self.target.__module__].__file__ == str(installed / "acme_gateway.py")

    def test_it_is_as_short_as_promised(self) -> None:
        lines = (PROJECT / "acme_gateway.py").read_text().splitlines()
        assert len([line for line in lines if line and not line.startswith(("from ", '"""'))]) <= 40


def test_nothing_of_it_is_left_when_it_is_not_installed() -> None:
    assert "acme_gateway" not in {point.name for point in entry_points(group="vaultkeeper.targets")}
