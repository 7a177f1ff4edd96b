"""What a service's spec tells before anything is changed: what would stop a rotation, and what will surprise. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from vaultkeeper.access.swarm import Service
from vaultkeeper.access.swarm import spec as swarm_spec
from vaultkeeper.access.swarm.spec import Mount, Reference
from vaultkeeper.access.swarm.tasks import Task, state
from vaultkeeper.model.outcome import Finding

_SHORT_MONITOR_S = 5.0
_READ_ONCE = ("POSTGRES_", "MYSQL_", "MARIADB_", "MONGO_INITDB_", "RABBITMQ_DEFAULT_", "INFLUXDB_INIT_")
"""Variables of images that use a value only while they make an empty data directory."""

_DATABASES = frozenset({"postgres", "mysql", "mariadb", "mongo", "redis", "valkey", "rabbitmq", "influxdb"})
"""Names of images, whoever's registry they come from."""

READ_LABEL = "vaultkeeper.read"
"""A service label in people's own stack files: `vaultkeeper.read: first_start`."""


def refusal(service: Service) -> Finding | None:
    """What must be settled by somebody before secrets of this service may change."""
    name = service.name
    if swarm_spec.is_job(service.spec):
        text = f"{name} is a job: each update runs it once more"
        return Finding("refuse", text, "leave it out; deploy it again with the new object's name (vaultkeeper env)")
    if paused(service):
        text = f"the last update of {name} is paused: {service.update_said}"
        return Finding("refuse", text, f"docker service rollback {name}   or   docker service update {name}")
    return None


def paused(service: Service) -> bool:
    """A rollout stopped half-way: some tasks are old, some new, and any update makes the Engine go on."""
    return service.update_state in ("paused", "rollback_paused")


def findings(
    service: Service, slots: Sequence[tuple[Mount, Sequence[Reference]]], current: Sequence[Task]
) -> list[Finding]:
    """`slots`: each mount with the references that stand for it now; `current`: the tasks that shall run now."""
    tasks, running = len(current), sum(state(task) == "running" for task in current)
    refused = refusal(service)
    found = [refused] if refused else []
    if service.moving:
        text = f"{service.name} is being updated ({service.update_state})"
        found.append(Finding("refuse", text, f"wait for it: docker service ps {service.name}"))
    wanted = swarm_spec.replicas(service.spec)
    if running < (tasks if wanted is None else wanted):
        text = (
            f"{service.name}: only {running} of {tasks if wanted is None else wanted} tasks run now, before any change"
        )
        found.append(Finding("warn", text, f"see why first: docker service ps --no-trunc {service.name}"))
    found += _rollout(service)
    for mount, present in slots:
        found += _slot(service, mount, present)
    return [*found, Finding("ok", _restarts(service, slots, tasks))]


def _restarts(service: Service, slots: Sequence[tuple[Mount, Sequence[Reference]]], tasks: int) -> str:
    config, running = swarm_spec.update_config(service.spec), swarm_spec.replicas(service.spec)
    many = tasks if running is None else running
    at_once = int(config.get("Parallelism", 1)) or many
    pace = "" if many <= 1 else f", {min(at_once, many)} at a time"
    what = ", ".join(mount.base for mount, _ in slots)
    who = "1 task restarts" if many == 1 else f"{many} tasks restart"
    yours = "this is your database" if _image(service) in _DATABASES else "your database is not restarted"
    return f"{service.name}: {who} once for {what} ({_order(config)}{pace}); {yours}"


def _image(service: Service) -> str:
    """Without registry, tag and digest."""
    image = str(((service.spec.get("TaskTemplate") or {}).get("ContainerSpec") or {}).get("Image", ""))
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0]


def _order(config: Mapping[str, Any]) -> str:
    return str(config.get("Order") or "stop-first")


def _rollout(service: Service) -> Iterator[Finding]:
    name, spec = service.name, service.spec
    config, health = swarm_spec.update_config(spec), swarm_spec.healthcheck(spec)
    if health is None:
        text = f"{name} has no health check of its own: a task that runs counts as healthy"
        yield Finding("warn", text, "give it one in the stack file; one in the image does not show here")
    if config.get("FailureAction") != "rollback":
        action = str(config.get("FailureAction") or "pause")
        text = (
            f"{name}: its failure_action is {action}; vaultkeeper puts the old secret back, later than the Engine would"
        )
        yield Finding("warn", text, "update_config: {failure_action: rollback}")
    ports = (spec.get("EndpointSpec") or {}).get("Ports") or []
    host_ports = [str(port.get("PublishedPort")) for port in ports if port.get("PublishMode") == "host"]
    if host_ports and _order(config) == "start-first":
        text = (
            f"{name}: start-first with the host port {', '.join(host_ports)} hangs where every node has a task already"
        )
        yield Finding("warn", text, "update_config: {order: stop-first}")
    image = str(((spec.get("TaskTemplate") or {}).get("ContainerSpec") or {}).get("Image", ""))
    if image and "sha256:" not in image:
        text = f"{name}: new tasks pull {image} again, which may be another image by now"
        yield Finding("warn", text, "pin it: IMAGE@sha256:…")
    monitor_s = swarm_spec.monitor_s(spec)
    if monitor_s < _SHORT_MONITOR_S:
        text = f"{name}: its monitor of {timedelta(seconds=monitor_s).total_seconds():g} s sees only what fails at once"
        yield Finding("warn", text, "update_config: {monitor: 30s}")


def _slot(service: Service, mount: Mount, present: Sequence[Reference]) -> Iterator[Finding]:
    if not present:
        yield Finding("warn", f"{service.name} does not read {mount.base} yet: it is added as {mount.path}")
    for name, value in _environment(service.spec):
        is_file = name.endswith("_FILE")
        if is_file and name.startswith(_READ_ONCE) and _is_path_of(value, mount):
            text = (
                f"{service.name} reads {name} only when it starts for the first time; a restart changes nothing there"
            )
            yield Finding("warn", text, f"`read: first_start` for {service.name}")
        elif not is_file and value and _suggests(name, mount.base):
            text = (
                f"{service.name} has the variable {name}: is that the secret, where everybody who may inspect sees it?"
            )
            yield Finding("warn", text, f"let it read {mount.path}, and drop the variable")


def inside(host: str, networks: str) -> Finding | None:
    """A target that only services of this swarm can reach, where `networks` is not empty."""
    if not networks:
        return None
    text = f"{host} is a service of this swarm without a published port: it is reached inside {networks} only"
    return Finding("warn", text, f"run vaultkeeper as a service in {networks}")


def made_elsewhere(service: Service, mount: Mount, by: str) -> Finding:
    """Meant where this installation follows another; not where both go on."""
    text = f"{service.name}: its {mount.base} was made by the installation {by}, whose place the next delivery takes"
    return Finding("warn", text, "where that one is still in use, give the secret another name in one of the two")


def reads_once(spec: Mapping[str, Any], mount: Mount) -> bool:
    """Does this service use the file at its first start only? Then restarting it would change nothing, and may harm."""
    if (spec.get("Labels") or {}).get(READ_LABEL) == "first_start":
        return True
    said = [name for name, value in _environment(spec) if name.endswith("_FILE") and _is_path_of(value, mount)]
    return bool(said) and all(name.startswith(_READ_ONCE) for name in said)


def _environment(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for entry in ((spec.get("TaskTemplate") or {}).get("ContainerSpec") or {}).get("Env") or []:
        name, _, value = str(entry).partition("=")
        yield name, value


def _is_path_of(value: str, mount: Mount) -> bool:
    return value.rstrip() == mount.path


def _suggests(variable: str, base: str) -> bool:
    plain = "".join(c for c in base.upper() if c.isalnum())
    return len(plain) > 3 and "".join(c for c in variable.upper() if c.isalnum()).endswith(plain)
