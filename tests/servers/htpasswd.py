"""Password files with their real readers: nginx with a list per account, and one Prometheus with its web config.

Accounts are asked through a proxy, for faults; `login` asks the readers directly.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import bcrypt

from tests.servers import TestAccount
from tests.servers.proxy import Proxy
from tests.servers.webservers import Nginx, Prometheus, asked

FAULTS = ("unreachable", "silent")
HEALTHY = "/-/healthy"  # Prometheus asks for a login there too


class HtpasswdServer:
    """Every account has a user that works. Users of one account's file are named after it."""

    kind = "htpasswd"

    def __init__(self, folder: Path | None = None) -> None:
        self._own = tempfile.TemporaryDirectory(prefix="vk-htpasswd-") if folder is None else None
        self.folder = Path(self._own.name) if self._own else folder or Path()
        (self.folder / "nginx").mkdir()
        self.nginx = Nginx(self.folder / "nginx")
        self.nginx.start()
        self.proxy = Proxy(self.nginx.port)
        self._asked_at: dict[str, tuple[int, str]] = {}

    @cached_property
    def prometheus(self) -> Prometheus:
        (self.folder / "prometheus").mkdir()
        made = Prometheus(self.folder / "prometheus")
        made.web_config.write_text(f"# by hand\nbasic_auth_users:\n  theirs: {hashed('theirs')} # kept\n")
        made.start()
        self._asked_at["theirs"] = (made.port, HEALTHY)
        return made

    @cached_property
    def prometheus_proxy(self) -> Proxy:
        return Proxy(self.prometheus.port)

    def account(self, name: str | None = None, **options: object) -> TestAccount:
        """Two users that take turns in a list of nginx; the first one works."""
        number = secrets.token_hex(4)
        first = name or f"app_{number}_a"
        users = [first, f"{first}2" if name else f"app_{number}_b"]
        path, password = self.nginx.list(number), secrets.token_urlsafe(18)
        path.write_text(f"# by hand\ntheirs:{hashed('theirs')}\n{first}:{hashed(password)}\n")
        for user in users:
            self._asked_at[user] = (self.nginx.port, f"/{number}/")
        probe = {"http": f"http://127.0.0.1:{self.proxy.port}/{number}/"}
        settings = {
            "format": "nginx", "path": str(path), "users": users, "strategy": "alternating_users", "cost": 4,
            "probe": probe,
        }  # fmt: skip
        return TestAccount(first, password, {**settings, **options})

    def of_prometheus(self, name: str | None = None) -> TestAccount:
        """One more user of the web config."""
        name, password = name or f"app_{secrets.token_hex(4)}", secrets.token_urlsafe(18)
        config = self.prometheus.web_config
        replace(config, config.read_text() + f"  {name}: {hashed(password)}\n")
        self._asked_at[name] = (self.prometheus.port, HEALTHY)
        settings = {
            "format": "prometheus", "path": str(config), "user": name, "strategy": "single", "cost": 4,
            "probe": {"http": f"http://127.0.0.1:{self.prometheus_proxy.port}{HEALTHY}"},
        }  # fmt: skip
        return TestAccount(name, password, settings)

    def foreign(self, account: object) -> tuple[str, str]:
        """One more user in the account's file."""
        assert isinstance(account, TestAccount)
        name, password, path = (
            f"other_{secrets.token_hex(4)}",
            secrets.token_urlsafe(18),
            Path(str(account.settings["path"])),
        )
        line = f"  {name}: {hashed(password)}\n" if path.suffix == ".yml" else f"{name}:{hashed(password)}\n"
        replace(path, path.read_text() + line)
        self._asked_at[name] = self._asked_at[account.username]
        return name, password

    def login(self, username: str, password: str) -> bool:
        status = asked(*self._asked_at[username], f"{username}:{password}")
        if status not in (200, 401):
            raise OSError(f"the reader answered {status}")
        return status == 200

    @contextmanager
    def fault(self, name: str, **options: object) -> Iterator[None]:
        proxies = [self.proxy, *([self.prometheus_proxy] if "prometheus_proxy" in self.__dict__ else [])]
        first, *others = [proxy.refusing() if name == "unreachable" else proxy.blackhole() for proxy in proxies]
        with first:
            if others:
                with others[0]:
                    yield
            else:
                yield

    def stop(self) -> None:
        for name in ("proxy", "prometheus_proxy"):
            if name in self.__dict__:
                self.__dict__[name].close()
        self.nginx.stop()
        if "prometheus" in self.__dict__:
            self.prometheus.stop()
        if self._own is not None:
            self._own.cleanup()


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


def replace(path: Path, text: str) -> None:
    """As an operator does who knows that readers look at any moment."""
    beside = path.with_name("operator")
    beside.write_text(text)
    beside.replace(path)


def start(folder: Path | None = None) -> HtpasswdServer:
    return HtpasswdServer(folder)


VARIANTS: Mapping[str, Callable[[HtpasswdServer], TestAccount]] = {
    "alternating": lambda server: server.account(),
    "prometheus": lambda server: server.of_prometheus(),
}
"""Accounts that the contract of targets is tried on."""
