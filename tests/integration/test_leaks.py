"""No value leaves by any way but the declared ones: one value a phase, known to the test, looked for everywhere.

The back ends are ones that cannot keep a secret (`tests/data/third_party/indiscreet`): they log every value that they
are shown and fail with exceptions that quote it, once in every hook. PostgreSQL logs every statement.
"""

from __future__ import annotations

import base64
import json
import secrets
import shutil
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import environment
from tests.integration.hunter import CALLS, Hunter
from tests.integration.shop_kit import NAME, Shop, identity_of, shop
from tests.servers import ServerMissing, TestAccount
from tests.servers import postgres as postgres_module
from tests.servers.postgres import PostgresServer

PROJECT = Path(__file__).parents[1] / "data/third_party/indiscreet"
FAILING = (
    "generate",
    "complete",
    "observe",
    "set",
    "test",
    "prepare",
    "deliver",
    "confirm",
    "release",
    "usage",
    "retire",
)
CALM = ("again", "rehearse", "emergency", "going on")  # `complete` failed: what was drawn was never stored
LOOKING = (
    ["status"], ["status", "--json"], ["status", "--observe", "--json"], ["history", NAME], ["history", NAME, "--json"],
    ["plan"], ["plan", "--json"], ["check"], ["check", "--json"], ["check", "--show"], ["doctor"],
    ["reconcile", NAME, "--json"], ["keys", "show", "--json"], ["keys", "check", "--json"],
    ["audit", "verify", "--json"],
)  # fmt: skip
NO_REDACTION = """\
from vaultkeeper.engine import guard
guard.Redactor.clean = lambda self, text: text
"""


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


def canary(phase: str) -> str:
    """Every spelling of it is another one, and no part of it looks like a word of ours."""
    return f"{phase[:3]}-{secrets.token_hex(8)} '\"\\%/+&=?é"


@dataclass
class Hunt:
    """One shop whose every command runs under strace, its output kept in files."""

    place: Shop
    values: Mapping[str, str]
    modules: Path
    traces: list[Path] = field(default_factory=list)

    @property
    def gossip(self) -> Path:
        return self.place.home / "gossip"

    @property
    def said(self) -> Path:
        return self.place.home / "said"

    def run(self, *arguments: str, stdin: str = "", codes: tuple[int, ...] = (0,)) -> None:
        trace = self.place.home / f"trace.{len(self.traces)}"
        self.traces.append(trace)
        env = environment(self.place.home) | {"VAULTKEEPER_DEBUG": "1"}
        env["PYTHONPATH"] += f":{self.modules}"
        strace = ["strace", "-f", "--seccomp-bpf", "-qq", "-y", "-xx", "-v", "-s", "65535", "-e", f"trace={CALLS}"]
        with (self.said / f"{len(self.traces)}.out").open("wb") as out, (self.said / "err").open("ab") as err:
            done = subprocess.run(
                [*strace, "-o", trace, sys.executable, "-m", "vaultkeeper", "-vv", *arguments],
                input=stdin.encode(), stdout=out, stderr=err, env=env, cwd=self.place.home, check=False, timeout=180,
            )  # fmt: skip
        assert done.returncode in codes, (arguments, done.returncode, (self.said / "err").read_text()[-3000:])

    def failing(self, hook: str) -> None:
        """A rotation in which this hook fails once and which is then resumed to its end."""
        wish = self.gossip / "fail"
        wish.write_text(hook)
        self.run("rotate", NAME, "--wait", "0s", codes=(0, 1, 5, 6))
        for _ in range(3):
            self.run("resume", NAME, "--wait", "30s", codes=(0, 1, 5, 6))
            if not wish.exists() and self.rests():
                return
        raise AssertionError(f"{hook} was not reached, or its failure has no end")

    def rests(self) -> bool:
        self.run("status", "--json")
        (secret,) = json.loads((self.said / f"{len(self.traces)}.out").read_text())["secrets"]
        return secret["state"] in {"ok", "rolled_back"}


def gossips(place: Shop, account: TestAccount, modules: Path, values: Mapping[str, str]) -> Hunt:
    hunt = Hunt(place, values, modules)
    for folder in (hunt.gossip, hunt.said):
        folder.mkdir()
    drawn = [values[name] for name in (*FAILING, *CALM)]
    (hunt.gossip / "values").write_text(json.dumps(drawn))
    told = {"gossip": str(hunt.gossip)}
    place.policy(
        generator={"kind": "canary", "values": str(hunt.gossip / "values")},
        target={**account.settings, **told, "kind": "gossip", "timeout": "1min"},
        grace_period="1s",
        destinations=[
            {"kind": "chatter", "path": "../out/db", "read": "per_use", "value": "{username} {password}", **told},
            {"kind": "sops", "path": "../out/db.sops.yaml", "values": {"db.password": "{password}"}},
            {
                "kind": "dotenv", "path": "../out/.env", "values": {"URL": "postgresql://shop:{password|url}@h/shop"},
                "reload": {"command": ["/bin/true", "reloaded"]},
                "confirm": {"command": ["/bin/true", "confirmed"]}, "healthy_for": "0s",
            },
        ],
    )  # fmt: skip
    return hunt


@dataclass
class Found:
    hunt: Hunt
    server: PostgresServer
    log_from: int


@pytest.fixture(scope="module")
def hunted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    """A whole life: every phase fails once, then everything that only looks is asked."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    settings = {
        "shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track_utility": "on",
        "log_statement": "all", "log_connections": "on", "log_error_verbosity": "verbose",
    }  # fmt: skip
    try:
        server = postgres_module.start("15", settings=settings)
    except ServerMissing as missing:
        pytest.skip(str(missing))
    folder = tmp_path_factory.mktemp("leaks")
    values = {name: canary(name) for name in ("adopt", *FAILING, *CALM)}
    yield _life(server, folder, values)
    server.stop()


def _life(server: PostgresServer, folder: Path, values: dict[str, str]) -> Found:
    server.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    account = server.alternating()
    with server.connect() as quiet:
        quiet.execute("SET log_statement = 'none'")
        literal = values["adopt"].replace("'", "''").replace("\\", "\\\\")
        quiet.execute(f"ALTER ROLE {account.username} PASSWORD E'{literal}'".encode())
        quiet.execute("SELECT pg_stat_statements_reset()")
    account = TestAccount(account.username, values["adopt"], {**account.settings, "create_users": True})
    log_from = len(server.log_text())
    modules = folder / "modules"
    modules.mkdir()
    install(PROJECT, modules)
    place = shop(folder, server, account, adopted=False)
    values["admin"] = server.superuser_password
    values["identity"] = identity_of(place.home).read_text().strip().splitlines()[-1]
    hunt = gossips(place, account, modules, values)
    hunt.run("adopt", NAME, stdin=json.dumps({"username": account.username, "password": account.password}))
    for hook in FAILING:
        hunt.failing(hook)
    hunt.run("rotate", NAME, "--rehearse", "--wait", "30s")
    hunt.run("rollback", NAME, "--wait", "30s")
    hunt.run("rotate", NAME, "--emergency", "--wait", "30s")
    hunt.run("rotate", NAME, "--wait", "0s")
    for command in LOOKING:
        hunt.run(*command)
    assert json.loads((hunt.gossip / "values").read_text()) == []
    return Found(hunt, server, log_from)


def look_everywhere(found: Found) -> Hunter:
    hunt, hunter = found.hunt, Hunter(found.hunt.values)
    out = hunt.place.home / "out"
    for trace in hunt.traces:
        hunter.look_at_calls(trace, out, hunt.gossip)  # the generator's own list is the test's
    hunter.look_into("stdout, stderr and the debug log", hunt.said)
    hunter.look_into("the state directory", hunt.place.state)
    hunter.look("the sops file", (out / "db.sops.yaml").read_bytes())
    hunter.look("the server's log", found.server.log_text()[found.log_from :])
    kept = found.server.execute("SELECT query FROM pg_stat_statements")
    hunter.look("pg_stat_statements", "\n".join(str(query) for (query,) in kept))
    return hunter


SINKS = {
    "arguments, environment and names", "writes to files", "writes to sockets", "stdout, stderr and the debug log",
    "the state directory", "the sops file", "the server's log", "pg_stat_statements",
}  # fmt: skip


def test_invariant_09_no_value_is_anywhere_but_in_its_declared_sinks(hunted: Found) -> None:
    hunter = look_everywhere(hunted)
    assert hunter.hits == []
    assert set(hunter.looked_at) == SINKS
    assert min(hunter.looked_at.values()) > 100, hunter.looked_at
    print({sink: f"{size // 1024} KiB" for sink, size in hunter.looked_at.items()})


def test_the_hunt_went_where_the_values_went(hunted: Found) -> None:
    """Each phase's value was delivered or spoken of, or its absence elsewhere would say nothing."""
    hunt = hunted.hunt
    err = (hunt.said / "err").read_text()
    for hook in FAILING[1:]:
        assert f"{hook} knows …" in err, hook
        assert f"{hook} failed with" in err, hook
    assert "cannot keep" not in err
    assert "unexpected RuntimeError" in err  # what the generator raised, with its frames
    assert "indiscreet.py:" in err
    programs = b"".join(trace.read_bytes() for trace in hunt.traces)
    for program in ("sops", "/bin/true"):
        assert program.encode().hex(" ").replace(" ", "\\x").encode() in programs
    written = Hunter(hunt.values)
    written.look("the consumers' files", (hunt.place.home / "out/db").read_bytes())
    assert written.hits
    assert "ALTER ROLE" in hunted.server.log_text()[hunted.log_from :]


def test_values_are_in_the_open_in_files_of_mode_0600_only(hunted: Found) -> None:
    home = hunted.hunt.place.home
    assert (home / "out/db").stat().st_mode & 0o777 == 0o600
    assert (home / "out/.env").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in (home / "out").iterdir()} == {"db", ".env", "db.sops.yaml"}


# -------------------------------------------------------------------------------------------------- the hunt can fail


def traced(folder: Path, *argv: str, env: Mapping[str, str] | None = None) -> Hunter:
    trace = folder / "trace"
    strace = ["strace", "-f", "--seccomp-bpf", "-qq", "-y", "-xx", "-v", "-s", "65535", "-e", f"trace={CALLS}"]
    subprocess.run([*strace, "-o", trace, *argv], env=env or {"PATH": "/usr/bin:/bin"}, check=True, cwd=folder)
    hunter = Hunter({"planted": PLANTED})
    hunter.look_at_calls(trace, folder / "declared")
    return hunter


PLANTED = canary("planted")
SPELT = base64.b64encode(f"user:{PLANTED}".encode()).decode()


@pytest.mark.parametrize(
    ("argv", "sink"),
    [
        (["/bin/true", PLANTED], "arguments, environment and names"),
        (["/bin/sh", "-c", f"/bin/true {SPELT}"], "arguments, environment and names"),
        (["/usr/bin/env", f"HEADER=Basic {SPELT}", "/bin/true"], "arguments, environment and names"),
        (["/bin/sh", "-c", f"echo {SPELT} > stray; rm stray"], "writes to files"),
        ([sys.executable, "-c", f"import socket; a, b = socket.socketpair(); a.send({PLANTED.encode()!r})"],
         "writes to sockets"),
    ],
)  # fmt: skip
def test_a_leak_planted_in_a_child_a_temporary_file_or_a_socket_is_found(
    tmp_path: Path, argv: list[str], sink: str
) -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    assert {hit.partition(":")[0] for hit in traced(tmp_path, *argv).hits} >= {sink}


@pytest.mark.parametrize("spelling", range(17))
def test_a_leak_planted_in_any_spelling_is_found_in_any_file(tmp_path: Path, spelling: int) -> None:
    from tests.integration.hunter import forms

    name, form = list(forms(PLANTED))[spelling]
    (tmp_path / "audit.log").write_bytes(b'{"seq": 1, "record": "' + form + b'"}\n')
    hunter = Hunter({"planted": PLANTED})
    hunter.look_into("the state directory", tmp_path)
    assert hunter.hits, name


def test_a_leak_that_was_deleted_from_the_database_is_found_in_its_free_pages(hunted: Found, tmp_path: Path) -> None:
    copy = tmp_path / "state"
    shutil.copytree(hunted.hunt.place.state, copy)
    with closing(sqlite3.connect(copy / "state.db", isolation_level=None)) as db:
        db.execute("PRAGMA secure_delete=OFF")
        db.execute("INSERT INTO meta VALUES ('planted', ?)", [PLANTED])
        db.execute("DELETE FROM meta WHERE key = 'planted'")
    hunter = Hunter({"planted": PLANTED})
    hunter.look_into("the state directory", copy)
    assert hunter.hits


def test_a_leak_planted_at_the_server_is_found_in_its_log_and_statistics(hunted: Found) -> None:
    hunted.server.account(password=PLANTED)
    hunted_before, hunted.hunt.values = hunted.hunt.values, {"planted": PLANTED}
    try:
        hits = {hit.partition(":")[0] for hit in look_everywhere(hunted).hits}
    finally:
        hunted.hunt.values = hunted_before
    assert hits == {"the server's log", "pg_stat_statements"}


def test_without_redaction_the_same_hunt_finds_what_was_said(hunted: Found, tmp_path: Path) -> None:
    """The control: the same shop and back ends, with the one line that hides values taken out."""
    modules = tmp_path / "modules"
    shutil.copytree(hunted.hunt.modules, modules)
    (modules / "sitecustomize.py").write_text(NO_REDACTION)
    hunt = hunted.hunt
    (hunt.gossip / "values").write_text(json.dumps([PLANTED]))
    sabotaged = Hunt(hunt.place, {"planted": PLANTED}, modules)
    said, kept = hunt.said, hunt.place.home / "kept"
    said.rename(kept)
    said.mkdir()
    try:
        sabotaged.run("resume", NAME, "--wait", "30s")
        sabotaged.run("rotate", NAME, "--wait", "0s")
        hunter: Any = Hunter(sabotaged.values)
        hunter.look_into("stderr", said)
        assert hunter.hits
    finally:
        shutil.rmtree(said)
        kept.rename(said)
