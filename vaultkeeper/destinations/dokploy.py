"""Variables of applications, Compose services, databases, projects and environments in Dokploy.

One key's value changes in the environment's text; every other character stays. What was saved is read back, and then
applied: `reload` for applications (no build, about a second), `redeploy` for Compose. Dokploy's `true` and `done` mean
that Docker Swarm accepted it, so a confirm looks at the environment of the containers, or asks the policy's probe.

Written for Dokploy v0.30.2, whose answers the simulator in `vaultkeeper.testing` is held to; the tests of this kind run
against that simulator, not against a real server.

Privileges: a member with access to the project, the environment and the service, and to the API (`canAccessToAPI`);
docker:read (`canAccessToDocker`) to see what containers run on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import ClassVar, Self

from vaultkeeper.access import slots
from vaultkeeper.access.answer import Answered, refused
from vaultkeeper.access.dokploy import DokployError, NotThere, RightMissing
from vaultkeeper.access.dokploy import running as dokploy_running
from vaultkeeper.access.dokploy.confirm import LATER, SOON, applied, confirmed, newest
from vaultkeeper.access.dokploy.env import KEY, resolve
from vaultkeeper.access.dokploy.group import Group, Settings, apply_to, edit, looked, may_hold, read_back
from vaultkeeper.access.dokploy.running import CannotSee
from vaultkeeper.access.dokploy.service import DATABASES, SHARED, Holder, save
from vaultkeeper.access.settings import host_of
from vaultkeeper.errors import PolicyInvalid
from vaultkeeper.model.outcome import (
    Confirmation,
    Confirmed,
    Done,
    Failed,
    Finding,
    Held,
    Holds,
    No,
    NotYet,
    Prepared,
    Proof,
    Refused,
    Result,
    Unknown,
)
from vaultkeeper.model.policy import DestinationSpec, Read
from vaultkeeper.model.secret import GroupKey, SecretBytes, SecretVersion, Slot
from vaultkeeper.ports import DeliveryContext, Item, Spot

_RELOADED, _BUILT = timedelta(minutes=5), timedelta(minutes=30)  # for a rolling update, and with a build before it


class DokployDestination:
    """The group is one service, project or environment; its slots are keys.

    Stateless but for what policies call each place: a group has one lock only under one name.
    """

    kind: ClassVar[str] = "dokploy"
    codec: ClassVar[int] = 1
    proof: ClassVar[Proof] = Proof.DEMONSTRATED
    puts_back: ClassVar[bool] = True
    #: what some place in Dokploy cannot carry; a value with one of them is refused only where it really cannot
    forbidden: ClassVar[frozenset[str]] = frozenset("\0\t\n\r \"#$&'()*;<>?[\\]`{|}~")
    max_bytes: ClassVar[int | None] = 32 << 10
    Settings: ClassVar[type[Settings]] = Settings

    def __init__(self) -> None:
        self._called: dict[tuple[str, str, str], str] = {}

    @classmethod
    def open(cls) -> Self:
        return cls()

    def spots(self, spec: DestinationSpec, ctx: DeliveryContext) -> Sequence[Spot] | Unknown:
        settings = Settings.model_validate(spec.settings)
        kind, said = settings.what
        for name in spec.values:
            if not KEY.fullmatch(name):
                raise PolicyInvalid(f"{name!r} is no name of a variable", next="write `values: {KEY: template}`")
        group = GroupKey(f"dokploy:{host_of(settings.url)}/{kind}/{said}")
        return [Spot(group, Slot(name), name, f"{kind} {said}: {name}") for name in spec.values]

    def check(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Sequence[Finding]:
        try:
            with looked(items, ctx) as here:
                version = here.server.get("settings.getDokployVersion")
                self._must_have_one_name(here)
                may_hold(here)
                findings = [finding for service in here.services for finding in _check_service(here, service)]
                findings += _check_slots(here)
                if here.holder.kind in SHARED and not here.services:
                    findings.append(Finding("warn", f"no service that this key sees refers to {here.holder.name}"))
        except Answered as error:
            level = "refuse" if isinstance(error.result, Refused) else "unchecked"
            return [Finding(level, error.what, error.next)]
        return findings or [Finding("ok", f"{here.holder.name} can be read, Dokploy {str(version)[:20]}")]

    def observe(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Mapping[Slot, Held] | Unknown:
        try:
            with looked(items, ctx) as here:
                return {item.slot: _held(here, item) for item in items}
        except Answered as error:
            return error.unknown

    def read(self, group: GroupKey, item: Item, ctx: DeliveryContext) -> SecretBytes | Unknown | None:
        try:
            with looked([item], ctx) as here:
                value = here.text.value(item.slot)
        except Answered as error:
            return error.unknown
        return None if value is None else SecretBytes(value.encode(errors="surrogatepass"))

    def prepare(
        self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext
    ) -> Prepared | Refused | NotYet | Unknown:
        """Edits a copy, so that a value which cannot stand there is refused before anything is set anywhere."""
        try:
            with looked(items, ctx) as here:
                self._must_have_one_name(here)
                may_hold(here)
                before = here.holder.env.encode(errors="surrogatepass")
                pins = {s.id: newest(here, s) for s in here.services if here.how(s) in ("redeploy", "deploy")}
                numbers = {item.slot: item.primary.number if item.primary else 0 for item in items}
                made = {
                    slot: slots.receipt(before, id=here.holder.id, newest=pins, to=n) for slot, n in numbers.items()
                }
                edit(here)
                if here.holder.kind not in SHARED:
                    resolve(here.text.text, here.holder.project_env, here.holder.environment_env)
        except Answered as error:
            return error.result
        return Prepared({item.slot: slots.receipt_of(item) or made[item.slot] for item in items})

    def _must_have_one_name(self, here: Group) -> None:
        """Raises Answered."""
        said = here.settings.what[1]
        first = self._called.setdefault((here.server.host, here.holder.kind, here.holder.id), said)
        if first != said:
            what = f"{here.holder.name} is called {first!r} in one policy and {said!r} in another"
            raise refused(No.UNSUPPORTED, what, next="call it the same in all policies")

    def deliver(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Result:
        """Save, read back, apply. An unchanged text is applied again only where its services do not run on it."""
        try:
            with looked(items, ctx) as here:
                before = here.holder.env
                edit(here)
                changed = here.text.text != before
                if changed:
                    save(here.server, here.holder, here.text.text)
                saved = read_back(here) if changed else here
                for number, service in enumerate(saved.services):
                    if changed or not applied(saved, service):
                        apply_to(saved, service, before if changed else None, saved.services[:number])
        except Answered as error:
            return error.result
        return Done()

    def confirm(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Confirmation:
        try:
            with looked(items, ctx) as here:
                return _confirmed(here, group, ctx)
        except (RightMissing, NotThere) as error:
            return NotYet(error.what, LATER)
        except Answered as error:  # nobody was seen failing on it, and what cannot be read cannot be put back either
            return error.unknown

    def confirm_deadline(self, group: GroupKey, items: Sequence[Item]) -> timedelta:
        settings = Settings.model_validate(items[0].spec.settings)
        built = settings.apply in ("redeploy", "deploy") or settings.what[0] in ("compose", *SHARED)
        return (_BUILT if built else _RELOADED) + max(item.spec.healthy_for for item in items)

    def holds(self, group: GroupKey, version: SecretVersion, item: Item, ctx: DeliveryContext) -> Holds | Unknown:
        """The text, and what still runs on it, where that can be seen."""
        try:
            with looked([item], ctx) as here:
                text = here.text
                if slots.carries(item, item.slot, version, lambda content: text.carries(item.slot, content)):
                    return Holds.RUNNING
                running = _running_values(here, item)
        except Answered as error:
            return error.unknown
        seen = slots.carries(item, item.slot, version, lambda content: content in running)
        return Holds.RUNNING if seen else Holds.NOTHING


def _confirmed(here: Group, group: GroupKey, ctx: DeliveryContext) -> Confirmation:
    """Raises DokployError, and Answered where nothing is known."""
    try:
        edit(here)
        if here.text.text != here.holder.env:
            return NotYet(f"{here.holder.name} no longer carries what was delivered", SOON, (here.holder.name,))
        answers = [confirmed(here, service, ctx) for service in here.services]
    except DokployError:
        raise
    except Answered as error:
        if isinstance(error.result, Refused):
            return Failed(str(group), error.what)
        raise
    for kind in (Failed, Unknown, NotYet):
        for answer in answers:
            if isinstance(answer, kind):
                return answer
    written = any(isinstance(a, Confirmed) and a.proof is Proof.WRITTEN for a in answers) or not answers
    return Confirmed(Proof.WRITTEN if written else Proof.DEMONSTRATED)


def _held(here: Group, item: Item) -> Held:
    if here.settings.by_reference:
        running = _running_values(here, item)
        if running:
            return slots.held(item, item.slot, lambda content: set(running) == {content})
        return Held(item.primary.number if item.primary else None)  # the reference is true of any version
    if here.text.get(item.slot) is None:
        return Held(None)
    return slots.held(item, item.slot, lambda content: here.text.carries(item.slot, content))


def _running_values(here: Group, item: Item) -> list[bytes]:
    """What containers that run have under this key; empty where that cannot be seen."""
    if here.holder.kind in (*SHARED, "compose"):
        return []
    with suppress(RightMissing, CannotSee):
        return [value.encode() for value in dokploy_running.holds(here.server, here.holder, item.slot)]
    return []


def _check_slots(here: Group) -> Iterator[Finding]:
    """A name may lead to another service than when the present version was delivered: nobody else would notice."""
    for item in here.items:
        if item.primary is None or item.content is None or here.settings.by_reference:
            continue
        if not here.text.carries(item.slot, item.content.reveal()):
            text = f"{here.holder.name}: {item.slot} does not hold v{item.primary.number}"
            yield Finding("warn", text, "was it changed by hand, or is it another service that has this name now?")


def _check_service(here: Group, service: Holder) -> Iterator[Finding]:
    if here.how(service) == "none" and here.spec.read is Read.AT_START:
        yield Finding("warn", f"{service.name} reads its variables at start, and `apply: none` restarts nothing")
    if service.kind in DATABASES and here.how(service) == "deploy":
        yield Finding("warn", f"{service.name} is restarted by each delivery")
    if here.settings.confirm is None and here.how(service) != "none" and (missing := _missing_proof(here, service)):
        yield Finding("warn", f"{missing}; a rotation would wait for it, then go back", _PROOF_NEXT)


_PROOF_NEXT = "declare `confirm: {http: …}` or `{command: […]}`, or give the key's user docker:read"


def _missing_proof(here: Group, service: Holder) -> str:
    """Why the containers of a service cannot be looked into; empty where they can."""
    if service.kind == "compose":
        return f"which containers of {service.name} get a variable, its Compose file decides"
    try:
        dokploy_running.holds(here.server, service, here.names[0])
    except RightMissing:
        return f"the key's user lacks docker:read to see what {service.name} runs on"
    return ""
