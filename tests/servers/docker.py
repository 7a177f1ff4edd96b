"""A real Docker Engine with a swarm of one node, an image whose consumers log in to PostgreSQL, and eyes to see them.

Fixtures (tests/conftest.py): `docker` is the worker's Engine, cleared of everything after each test; `new_docker()`
starts one for this test alone, to be killed. Both are `Engine`:

    engine.url                              "unix:///…", for a policy's connection or DOCKER_HOST
    engine.image                            "sha256:…", never pulled; `engine.tag` is the same by a mutable tag
    engine.api("POST", "/services/create", body, **query)   the raw Engine API: JSON, text or None; errors: ApiError
    engine.name("db")                       a name that no other test and no other run has
    engine.secret("db", "user value")       a hand-made secret object: {"ID": …, "Name": …}, `labels={…}`
    engine.service("web", {"db": secret})   a Service whose file /run/secrets/db is that secret; see there
    engine.wait_for("…", look, timeout=180)  polls until `look()` is true, returns it, or fails with the sentence
    engine.secrets() .services()            what is there, raw, of this run
    engine.container("web", binds=[…])      a plain container, as Compose makes them; see there
    engine.read(container_id, "/path")      a file as it is *inside* a container: bytes, or None
    engine.clear()                          remove everything of this run

    service.tasks() .running() .containers() .logs() .spec() .update_state() .set(…)   tests/servers/docker_service.py

Consumers (tests/data/consumer/consume) break on request: `breaks="exit"`, `"late"` or `"unhealthy"` on values whose
`digits` are not in `works_on`. Services use the host's network, where PostgreSQL listens on 127.0.0.1.
"""

from __future__ import annotations

import atexit
import base64
import functools
import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from tests.servers import ServerMissing, docker_image
from tests.servers.docker_service import ApiError, Service, frames, reference
from tests.servers.dockerd import Daemon, client

LABEL = "vaultkeeper.test"
TAGS = "vaultkeeper-test"
SECOND = 1_000_000_000  # the API counts nanoseconds
Found = TypeVar("Found")


def start() -> Engine:
    """Start our own; without root, borrow VAULTKEEPER_TEST_DOCKER_HOST. Raises ServerMissing where neither is there."""
    borrowed = os.environ.get("VAULTKEEPER_TEST_DOCKER_HOST")
    if borrowed and os.geteuid() != 0:
        return Engine(borrowed)
    archive = docker_image.archive()
    daemon = Daemon()
    return Engine(daemon.url, daemon, archive)


@functools.cache
def shared() -> Engine:
    """The one of this process, for all who clear away what they made; it ends with the process."""
    return start()


def digits(value: str | bytes) -> str:
    """How a consumer names a value in its log: 12 hex digits of its SHA-256."""
    return hashlib.sha256(value if isinstance(value, bytes) else value.encode()).hexdigest()[:12]


class Engine:
    """One Engine. On a borrowed one (`daemon` None) it touches only what carries this run's label or name."""

    def __init__(self, url: str, daemon: Daemon | None = None, archive: bytes | None = None) -> None:
        self.url = url
        self.daemon = daemon
        self.run = "vkt" + secrets.token_hex(3)
        self.labels = {LABEL: self.run}
        self._client = client(url)
        self._owner_pid = os.getpid()
        self._made = 0
        atexit.register(self.stop)
        try:
            self._must_be_a_manager()
            self._tags: list[str] = []
            self.tag = self.imported("consumer", archive or docker_image.archive())
            self.image = str(self.api("GET", f"/images/{self.tag}/json")["Id"])
        except BaseException:
            self.stop()
            raise

    def _must_be_a_manager(self) -> None:
        swarm = self.api("GET", "/info")["Swarm"]
        if not swarm.get("ControlAvailable"):
            raise ServerMissing(f"{self.url} is not a swarm manager: docker swarm init")

    def imported(self, name: str, archive: bytes) -> str:
        """Make an image of a root file system; returns its tag. It is there as long as this Engine."""
        repository, tag = TAGS, name if self.daemon else f"{name}-{self.run}"
        answer = self._client.post(
            "/images/create",
            params={"fromSrc": "-", "repo": repository, "tag": tag, "changes": f"LABEL {LABEL}={self.run}"},
            content=archive,
            headers={"Content-Type": "application/x-tar"},
        )
        if answer.is_error:
            raise ApiError(answer.status_code, answer.text)
        self._tags.append(f"{repository}:{tag}")
        return self._tags[-1]

    # -------------------------------------------------------------------------------------------------- asking

    def api(self, method: str, path: str, body: object = None, **query: Any) -> Any:
        """Ask the Engine; filters and other objects in the query are given as Python objects."""
        params = {key: value if isinstance(value, str) else json.dumps(value) for key, value in query.items()}
        answer = self._client.request(method, path, params=params, json=body)
        if answer.is_error:
            raise ApiError(answer.status_code, answer.text.strip())
        if "json" in answer.headers.get("content-type", ""):
            return answer.json() if answer.content.strip() else None
        return answer.content

    def wait_for(self, what: str, look: Callable[[], Found], timeout: float = 180) -> Found:
        """Poll until `look` finds something; `timeout` in seconds only ends a test that hangs."""
        until = time.monotonic() + timeout
        while True:
            found = look()
            if found:
                return found
            if time.monotonic() > until:
                raise AssertionError(f"waited {timeout:.0f} s in vain: {what}\n{self.told()}")
            time.sleep(0.1)

    def told(self) -> str:
        """Return every task of this run, for a failed test's report."""
        lines = []
        for service in self.services():
            state = (service.get("UpdateStatus") or {}).get("State")
            lines.append(f"{service['Spec']['Name']}: update {state}")
            for task in self.api("GET", "/tasks", filters={"service": [service["ID"]]}):
                status = task["Status"]
                lines.append(f"  slot {task.get('Slot')} wanted {task['DesiredState']} is {status['State']} "
                             f"{status.get('Err', '')}")  # fmt: skip
        return "\n".join(lines)

    # -------------------------------------------------------------------------------------------------- making

    def name(self, base: str) -> str:
        self._made += 1
        return f"{self.run}-{base}-{self._made}"

    def secret(self, name: str, value: str | bytes, labels: Mapping[str, str] | None = None) -> dict[str, str]:
        """Make a secret object by hand. `name` stays as given where it begins with this run's name."""
        full = name if name.startswith(self.run) else self.name(name)
        raw = value if isinstance(value, bytes) else value.encode()
        body = {"Name": full, "Data": base64.b64encode(raw).decode(), "Labels": dict(labels or {})}
        return {"ID": self.api("POST", "/secrets/create", body)["ID"], "Name": full}

    def service(
        self,
        name: str,
        files: Mapping[str, Mapping[str, str]] | None = None,
        *,
        replicas: int | None = 1,
        environment: Mapping[str, object] | None = None,
        breaks: str = "",
        works_on: Iterable[str] = (),
        healthcheck: bool = True,
        update: Mapping[str, object] | None = None,
        update_config: bool = True,
        container: Mapping[str, object] | None = None,
        task: Mapping[str, object] | None = None,
        started: bool = True,
        **spec: object,
    ) -> Service:
        """Make a service of consumers and wait until its tasks run.

        `files`: secret by file name. `replicas` None: global. `update` changes, and `update_config=False` leaves out,
        the UpdateConfig (start-first, one after the other, monitor 1 s, rollback). `container`, `task` and `spec`
        replace keys of ContainerSpec, TaskTemplate and the whole (`Mode=…`, `EndpointSpec=…`).
        """
        variables = {"BREAKS": breaks, "WORKS_ON": " ".join(works_on), **(environment or {})}
        made = {
            "Image": self.image,
            "Command": ["/bin/consume"],
            "Env": [f"{key}={value}" for key, value in variables.items() if value != ""],
            "Init": True,
            "StopGracePeriod": SECOND,
            "Secrets": [reference(file, secret) for file, secret in (files or {}).items()],
            **(
                {"Healthcheck": {"Test": ["CMD", "test", "-e", "/tmp/healthy"], "Interval": SECOND, "Retries": 4,
                                 "Timeout": 5 * SECOND}}
                if healthcheck else {}
            ),
            **(container or {}),
        }  # fmt: skip
        body = {
            "Name": name if name.startswith(self.run) else self.name(name),
            "Labels": self.labels,
            "TaskTemplate": {
                "ContainerSpec": made,
                "Networks": [{"Target": "host"}],
                "RestartPolicy": {"Condition": "any", "Delay": SECOND // 2},
                **(task or {}),
            },
            "Mode": {"Global": {}} if replicas is None else {"Replicated": {"Replicas": replicas}},
            **spec,
        }
        if update_config:
            body["UpdateConfig"] = {
                "Parallelism": 1, "Order": "start-first", "FailureAction": "rollback", "Monitor": SECOND,
                "MaxFailureRatio": 0, **(update or {}),
            }  # fmt: skip
        service = Service(self, self.api("POST", "/services/create", body)["ID"], str(body["Name"]))
        if started:
            self.wait_for(f"{name} runs", service.all_running)
        return service

    def container(
        self, name: str, *, binds: Sequence[str] = (), labels: Mapping[str, str] | None = None, **more: object
    ) -> str:
        """Make and start a plain container on the host's network; returns its id. `more` replaces keys of its body."""
        body = {
            "Image": self.image,
            "Cmd": ["sleep", "inf"],
            "Labels": {**self.labels, **(labels or {})},
            "StopTimeout": 1,
            "HostConfig": {"Binds": list(binds), "NetworkMode": "host", "Init": True},
            **more,
        }
        made = str(self.api("POST", "/containers/create", body, name=self.name(name))["Id"])
        self.api("POST", f"/containers/{made}/start")
        return made

    # ------------------------------------------------------------------------------------------------- looking

    def services(self) -> list[dict[str, Any]]:
        return list(self.api("GET", "/services", filters={"label": [f"{LABEL}={self.run}"]}))

    def secrets(self) -> list[dict[str, Any]]:
        """Every secret object whose name is of this run, vaultkeeper's included; on our own Engine all of them."""
        found = self.api("GET", "/secrets")
        return [each for each in found if self.daemon or each["Spec"]["Name"].startswith(self.run)]

    def run_in(self, container: str, *argv: str) -> tuple[int, bytes]:
        """Run a program inside a container: exit code and what it said."""
        asked = {"Cmd": list(argv), "AttachStdout": True, "AttachStderr": True}
        made = self.api("POST", f"/containers/{container}/exec", asked)["Id"]
        said = frames(self.api("POST", f"/exec/{made}/start", {"Detach": False}) or b"")
        return int(self.api("GET", f"/exec/{made}/json")["ExitCode"]), said

    def read(self, container: str, path: str) -> bytes | None:
        """Return a file as a process inside the container reads it; None: there is none."""
        code, said = self.run_in(container, "cat", path)
        return said if code == 0 else None

    # ---------------------------------------------------------------------------------------------------- ends

    def clear(self) -> None:
        """Remove what carries this run's label or name; on our own Engine every service, secret and config."""
        mine = {"label": [f"{LABEL}={self.run}"]}
        for service in self.services():
            self.api("DELETE", f"/services/{service['ID']}")
        for each in self.api("GET", "/containers/json", filters=mine, all=True):
            self._gone(f"/containers/{each['Id']}", force=True)
        for each in self.api("GET", "/networks", filters=mine):
            self._gone(f"/networks/{each['Id']}")
        for each in self.api("GET", "/volumes", filters=mine)["Volumes"] or []:
            self._gone(f"/volumes/{each['Name']}", force=True)
        for kind in ("secrets", "configs"):
            for each in self.api("GET", f"/{kind}"):
                if self.daemon or each["Spec"]["Name"].startswith(self.run):
                    self._gone(f"/{kind}/{each['ID']}")

    def _gone(self, path: str, **query: object) -> None:
        try:
            self.api("DELETE", path, **query)
        except ApiError as error:
            if error.status not in {400, 404, 409}:  # it is being removed, or still in use by what is
                raise

    def kill(self) -> None:
        """End our own dockerd by SIGKILL; `start_again` brings it back with all that it kept."""
        assert self.daemon is not None, "a borrowed Engine is not killed"
        self.daemon.kill()

    def start_again(self) -> None:
        assert self.daemon is not None
        self.daemon.start()

    def stop(self) -> None:
        """End our own dockerd with everything in it; clear a borrowed one. Idempotent, and not by a forked child."""
        if os.getpid() != self._owner_pid or self._client.is_closed:
            return
        atexit.unregister(self.stop)
        try:
            if self.daemon:
                self.daemon.stop()
            else:
                self.clear()
                for tag in self._tags:
                    self._gone(f"/images/{tag}")
        finally:
            self._client.close()
