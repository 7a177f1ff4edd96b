"""Real nginx and Prometheus from Debian's packages, on 127.0.0.1, as the user that runs the tests."""

from __future__ import annotations

import base64
import http.client
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from tests.servers import ServerMissing
from tests.servers.tls import Certificates
from vaultkeeper.testing.port import kept, number

PATIENCE_S = 30  # for a server to start

# `auth_basic` is not asked before `return`, so that a file is served; bodies of 403 and 404 tell nothing.
_NGINX = """\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 256; }}
http {{
  log_format all '$remote_addr $remote_user "$request" $status $http_user_agent';
  access_log {folder}/access.log all;
  {temporary}
  server {{
    listen 127.0.0.1:{port}{tls};
    location ~ ^/(?<list>[A-Za-z0-9_-]+)/ {{
      auth_basic "lists";
      auth_basic_user_file {folder}/lists/$list/users;
      root {folder}/served;
      try_files /page =404;
    }}
    location ^~ /open/ {{ return 204; }}
    location ^~ /slow/ {{ return 429; }}
  }}
}}
"""


class WebServer:
    """One process that listens on `port`."""

    def __init__(self, program: str, folder: Path) -> None:
        found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/bin")
        if found is None:
            raise ServerMissing(f"{program} is not installed")
        self.program, self.folder, self._held = found, folder, kept()
        self.port = number(self._held)
        self._process: subprocess.Popen[bytes] | None = None

    def argv(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        with (self.folder / "said").open("ab") as said:
            self._process = subprocess.Popen(
                [self.program, *self.argv()], cwd=self.folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                env={"PATH": os.environ["PATH"], "HOME": str(self.folder)},
            )  # fmt: skip
        until = time.monotonic() + PATIENCE_S
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"{self.program} did not start:\n{self.log_text()[-2000:]}")
            time.sleep(0.01)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def log_text(self) -> str:
        """Everything that the server wrote about itself and its clients."""
        logs = [self.folder / "said", *sorted(self.folder.glob("*.log"))]
        return "\n".join(log.read_text(errors="replace") for log in logs if log.exists())

    def stop(self) -> None:
        """Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self._held.close()


class Nginx(WebServer):
    """`/NAME/` asks for a user of `lists/NAME/users`, `/open/` for nobody, `/slow/` always answers 429."""

    def __init__(self, folder: Path, certificates: Certificates | None = None) -> None:
        super().__init__("nginx", folder)
        for name in ("lists", "served", "temporary"):
            (folder / name).mkdir()
        (folder / "served/page").write_text("served\n")
        tls = ""
        if certificates is not None:
            for name, text in (("server.crt", certificates.certificate), ("server.key", certificates.key)):
                (folder / name).write_text(text)
            tls = f" ssl;\n    ssl_certificate {folder}/server.crt;\n    ssl_certificate_key {folder}/server.key"
        paths = (f"{name}_temp_path {folder}/temporary/{name};" for name in _TEMPORARY)
        text = _NGINX.format(folder=folder, port=self.port, tls=tls, temporary="\n  ".join(paths))
        (folder / "nginx.conf").write_text(text)

    def argv(self) -> list[str]:
        return ["-p", str(self.folder), "-c", "nginx.conf", "-e", str(self.folder / "error.log")]

    def list(self, name: str) -> Path:
        """The file of users of `/NAME/`, in a folder of its own."""
        (self.folder / "lists" / name).mkdir(exist_ok=True)
        return self.folder / "lists" / name / "users"


_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Prometheus(WebServer):
    """Scrapes nothing; asks for a user of `web.yml`."""

    def __init__(self, folder: Path) -> None:
        super().__init__("prometheus", folder)
        (folder / "prometheus.yml").write_text("global: {scrape_interval: 1h}\n")
        self.web_config = folder / "web" / "web.yml"
        self.web_config.parent.mkdir()

    def argv(self) -> list[str]:
        return [
            "--config.file=prometheus.yml", f"--web.config.file={self.web_config}", "--storage.tsdb.path=data",
            f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=debug",
        ]  # fmt: skip


def asked(port: int, path: str, login: str | None) -> int:
    """The status of a request as any client makes it. `login`: user:password, None for nobody."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {} if login is None else {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}
    try:
        connection.request("GET", path, headers=headers)
        return connection.getresponse().status
    finally:
        connection.close()
