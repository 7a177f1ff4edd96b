"""What only shows when all secrets are known: two in one slot or for one account, cycles, names that do not exist."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from graphlib import CycleError, TopologicalSorter
from typing import Any, NoReturn

from vaultkeeper.errors import BackendError, VaultkeeperError
from vaultkeeper.model.outcome import Unknown
from vaultkeeper.model.policy import DestinationSpec, Place, RotationPolicy, TargetSpec
from vaultkeeper.model.secret import Binding, SecretBytes, SecretVersion, Strategy
from vaultkeeper.policyfile.findings import did_you_mean
from vaultkeeper.policyfile.secret import Secret
from vaultkeeper.policyfile.settings import Mention, Reading
from vaultkeeper.ports import Deadline, DeliveryContext, Spot

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def judge(settled: Sequence[tuple[Secret, RotationPolicy]], names: Collection[str], reading: Reading) -> None:
    """`names`: of all secrets in the files, those with errors too."""
    _slots(settled, reading)
    _accounts(settled, reading)
    _depends_on(settled, names)
    _cycles(settled)
    _mentions(reading.mentions, names, reading)


@dataclass(frozen=True)
class _Delivery:
    """One destination of a secret, where it stands."""

    spec: DestinationSpec
    place: Place
    path: str


def _deliveries(secret: Secret, policy: RotationPolicy) -> Iterator[_Delivery]:
    for part, spec in secret.destinations:
        yield _Delivery(spec, part.raw.place, part.path)
    target = policy.target
    for key, beside in (("via", target.via), ("persisted_by", target.persisted_by)) if target else ():
        if beside is not None:
            place = secret.raw["target"].where(key)
            yield _Delivery(beside, place, f"{secret.name}.target.{key}")


class _NoCredentials:
    def resolve(self, reference: Mapping[str, Any]) -> NoReturn:
        raise BackendError("credentials are not used while policies are read")


_OFFLINE = DeliveryContext("", {}, Deadline(0.0), _NoCredentials())


def _slots(settled: Iterable[tuple[Secret, RotationPolicy]], reading: Reading) -> None:
    """Among enabled secrets; slots that have to be discovered are judged by `check`."""
    taken: dict[tuple[str, str], tuple[str, Place]] = {}
    files: dict[str, tuple[str, str]] = {}
    for secret, policy in settled:
        target = policy.target
        if not policy.enabled:
            continue
        if target is not None and isinstance(path := target.settings.get("path"), str) and path.startswith("/"):
            files.setdefault(path, (f"target {target.kind}", secret.name))
        for delivery in _deliveries(secret, policy):
            for spot in _spots(delivery, reading):
                other, place = taken.setdefault((spot.group, spot.slot), (secret.name, delivery.place))
                if place != delivery.place:
                    text = f"two secrets in one slot: {spot.name} is written by {other} already ({place})"
                    reading.findings.add(delivery.place, delivery.path, text)
            _one_kind_per_file(delivery, secret.name, files, reading)


def _one_kind_per_file(delivery: _Delivery, name: str, files: dict[str, tuple[str, str]], reading: Reading) -> None:
    """Kinds lock their own groups only: two of them would overwrite each other in one file."""
    path = delivery.spec.settings.get("path") or delivery.spec.settings.get("env_file")
    if not isinstance(path, str) or not path.startswith("/"):
        return
    kind, other = files.setdefault(path, (delivery.spec.kind, name))
    if kind != delivery.spec.kind:
        text = f"{path} belongs to {kind} of {other} already; expected one kind per file"
        reading.findings.add(delivery.place, delivery.path, text)


def _spots(delivery: _Delivery, reading: Reading) -> Sequence[Spot]:
    spec = delivery.spec
    if spec.settings.get("discover"):
        return ()
    try:
        found = reading.kinds.destination(spec.kind).spots(spec, _OFFLINE)
    except VaultkeeperError as error:
        text = "; ".join(part for part in (str(error), error.next) if part)
    except Exception as error:  # noqa: BLE001 - a kind may raise whatever it likes; all errors are told in one run
        text = f"{spec.kind} cannot read its own settings ({type(error).__name__})"
    else:
        return () if isinstance(found, Unknown) else found
    reading.findings.add(delivery.place, delivery.path, text)
    return ()


def _accounts(settled: Iterable[tuple[Secret, RotationPolicy]], reading: Reading) -> None:
    """Among enabled secrets: who takes an account's one value away cuts off whoever was given it by another secret.

    Side by side (`overlap`) both stay.
    """
    named: dict[tuple[str, str], list[tuple[Secret, TargetSpec, str]]] = {}
    for secret, policy in settled:
        spec = policy.target
        if not policy.enabled or spec is None:
            continue
        users = spec.settings.get("users") or [spec.settings.get("user")]
        for user in users if isinstance(users, list | tuple) else ():
            if isinstance(user, str):
                named.setdefault((spec.kind, user.casefold()), []).append((secret, spec, user))
    for alike in named.values():
        if len(alike) > 1:  # only these are worth opening a target for
            _cut_each_other_off(alike, reading)


def _cut_each_other_off(alike: Sequence[tuple[Secret, TargetSpec, str]], reading: Reading) -> None:
    """`alike`: one kind and one name, perhaps at different systems."""
    at: dict[tuple[str, str], list[tuple[Secret, TargetSpec]]] = {}
    for secret, spec, user in alike:
        key, earlier = _login_key(spec, user, reading), list[tuple[Secret, TargetSpec]]()
        if key is not None:
            earlier = at.setdefault(key, [])
        for other, there in earlier:
            side_by_side = spec.strategy is there.strategy is Strategy.OVERLAP
            if not side_by_side and not _from_elsewhere(spec, there):
                where = other.raw.where("target")
                text = f"two secrets for one account: {user} is changed by {other.name} already ({where})"
                secret.fault("target", f"{text}, and each would cut the other's consumers off")
                break
        earlier.append((secret, spec))


def _from_elsewhere(one: TargetSpec, other: TargetSpec) -> bool:
    """At MySQL an account is a name and where it comes from."""
    here, there = one.settings.get("hosts"), other.settings.get("hosts")
    if not isinstance(here, list | tuple) or not isinstance(there, list | tuple):
        return False
    return not set(here) & set(there)


def _login_key(spec: TargetSpec, user: str, reading: Reading) -> tuple[str, str] | None:
    """None: the kind cannot say it from the settings alone."""
    try:
        kind = reading.kinds.target_class(spec.kind)
        made_for = Binding(spec.strategy, spec.kind, spec.settings, kind.codec)
        anything = SecretVersion("", 0, "", {"username": SecretBytes(user.encode())}, made_for, EPOCH)
        return kind.open(spec.settings, kind.codec).login_key(anything)
    except Exception:  # noqa: BLE001 - a kind may raise whatever it likes; what it is about is told elsewhere
        return None


def _depends_on(settled: Iterable[tuple[Secret, RotationPolicy]], names: Collection[str]) -> None:
    for secret, policy in settled:
        for name in policy.depends_on:
            if name not in names:
                secret.fault("depends_on", f"no secret `{name}`; {_near(name, names)}")


def _near(name: str, names: Collection[str]) -> str:
    """A list of ten thousand names helps nobody."""
    guess = did_you_mean(name, names)
    return guess if guess.startswith("did") else "expected the name of a secret in these files"


def _cycles(settled: Iterable[tuple[Secret, RotationPolicy]]) -> None:
    secrets = {secret.name: secret for secret, _ in settled}
    graph = {policy.name: set(policy.depends_on) & set(secrets) for _, policy in settled if policy.depends_on}
    while True:
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            cycle: list[str] = error.args[1]  # each is depended on by the next
            first = min(cycle)
            around = cycle[cycle.index(first) : -1] + cycle[: cycle.index(first)] if first != cycle[-1] else cycle[:-1]
            loop = " → ".join([*reversed(around), around[-1]])
            secrets[around[-1]].fault("depends_on", f"a cycle: {loop}")
            graph = {name: needs - set(cycle) if name in cycle else needs for name, needs in graph.items()}
        else:
            return


def _mentions(mentions: Iterable[Mention], names: Collection[str], reading: Reading) -> None:
    for mention in mentions:
        if mention.secret not in names:
            text = f"no secret `{mention.secret}`; {_near(mention.secret, names)}"
            reading.findings.add(mention.place, f"{mention.path}.secret", text)
        elif mention.path.startswith(f"{mention.secret}.target."):
            text = "a secret that its own target is administered with needs `admin: self`"
            reading.findings.add(mention.place, mention.path, text)
