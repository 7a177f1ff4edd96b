"""Any place that a program of yours can write and show: `write` and `show`.

For places that vaultkeeper has no destination for. Each is an argument list with an absolute path; no shell reads it.
It is run in `/` with an environment of four constants and a deadline, at which its whole process group is killed. It
reads one JSON document on stdin:

    {"hook": "write", "installation": …, "values": {"db_password": "…"}}

`write` stores every value under its name (`value` where the policy has a single one), removes those that are null, and
touches nothing else; twice equals once. `show` answers what is there:

    {"values": {"db_password": "…", "db_user": {"sha256": "…"}, "other": null}, "changed_at": 1764460800}

A place that does not show its values may answer with their SHA-256, in hex: enough to compare, not to put back what was
there before the first delivery. `changed_at`, seconds since the epoch, is needed where the policy has a `confirm`.

Exit codes: 0 done; 64, 65, 73, 77 refused, nothing changed (unsupported, this value, no room, missing privilege); 75
throttled; any other: unknown.

Privileges: those that your programs need.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

from pydantic import Field

from vaultkeeper.access import program, shown, slots
from vaultkeeper.access.answer import Answered, unknown
from vaultkeeper.access.settings import Argv, Consumers
from vaultkeeper.access.shown import Seen, There
from vaultkeeper.model.outcome import (
    Finding,
    Proof,
    Refused,
    Result,
    Unknown,
)
from vaultkeeper.model.policy import DestinationSpec
from vaultkeeper.model.secret import GroupKey, Slot
from vaultkeeper.ports import DeliveryContext, Item, Spot

MAX_BYTES = 64 << 10


class CommandSettings(Consumers):
    """What a policy may say beside `kind: command`, `value` or `values`, and `read`."""

    write: Argv = Field(description="stores the values that it reads on stdin")
    show: Argv = Field(description="answers what the place holds")


class CommandDestination(shown.ShownPlace):
    """One `write` program is one group: all its values in one run."""

    kind: ClassVar[str] = "command"
    codec: ClassVar[int] = 1
    proof: ClassVar[Proof] = Proof.DEMONSTRATED
    puts_back: ClassVar[bool] = True
    forbidden: ClassVar[frozenset[str]] = frozenset()
    max_bytes: ClassVar[int | None] = MAX_BYTES
    Settings: ClassVar[type[CommandSettings]] = CommandSettings

    @classmethod
    def open(cls) -> Self:
        return cls()

    def spots(self, spec: DestinationSpec, ctx: DeliveryContext) -> Sequence[Spot] | Unknown:
        writer = " ".join(_settings(spec).write)
        group = GroupKey(f"command:{writer}")
        return [Spot(group, Slot(name or shown.LONE), name, f"{writer}: {name or shown.LONE}") for name in spec.values]

    def check(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Sequence[Finding]:
        settings = [_settings(item.spec) for item in items]
        argvs = dict.fromkeys(argv for one in settings for argv in (one.write, one.show))
        findings = [finding for argv in argvs for finding in program.runnable(argv)]
        if findings:
            return findings
        try:
            self.look(items, ctx)
        except Answered as error:
            return [Finding("refuse" if isinstance(error.result, Refused) else "unchecked", error.what)]
        return [Finding("ok", f"{argv[0]} can be run") for argv in argvs]

    def look(self, items: Sequence[Item], ctx: DeliveryContext) -> tuple[There, float | None]:
        """Slot → what it holds, absent ones left out; when the place last changed. Raises Answered."""
        argv = _settings(items[0].spec).show
        said = _run(argv, "show", items, ctx, {"names": [item.slot for item in items]})
        values, changed_at = said.get("values"), said.get("changed_at")
        if not isinstance(values, dict):
            raise unknown(f'{argv[0]} did not answer {{"values": …}}')
        found = {Slot(slot): _seen(argv, value) for slot, value in values.items() if value is not None}
        return found, float(changed_at) if isinstance(changed_at, int | float) else None

    def deliver(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Result:
        """One run with every value that is not there yet; consumers are told again in either case (after a crash)."""
        settings = _settings(items[0].spec)
        try:
            there, _ = self.look(items, ctx)
            left = {item.slot: content for item, content in shown.lacking(items, there)}
            if left:
                told = {slot: None if content is None else program.as_text(content) for slot, content in left.items()}
                _run(settings.write, "write", items, ctx, {"values": told})
        except Answered as error:
            return error.result
        return self.tell(items, ctx)


# ------------------------------------------------------------------------------------------------------ small parts


def _settings(spec: DestinationSpec) -> CommandSettings:
    return CommandSettings.model_validate(spec.settings)


def _seen(argv: Argv, value: object) -> Seen:
    """A string, {"base64": …} or {"sha256": …}. Raises Answered; its text holds nothing of the value."""
    match value:
        case str():
            content = value.encode(errors="surrogatepass")  # a lone surrogate is no value of ours, and no crash
        case {"base64": str(text)}:
            try:
                content = base64.b64decode(text, validate=True)
            except ValueError:
                raise unknown(f"{argv[0]} answered a value that is no base64") from None
        case {"sha256": str(digest)}:
            return Seen(None, digest.lower())
        case _:
            raise unknown(f"{argv[0]} answered a value that is neither text, base64 nor sha256")
    return Seen.whole(content)


def _run(
    argv: Argv, hook: str, items: Sequence[Item], ctx: DeliveryContext, told: Mapping[str, Any]
) -> Mapping[str, Any]:
    """What it answers. Raises Answered where it did not exit 0."""
    document = {"hook": hook, "installation": ctx.installation, **told}
    ran = program.run(argv, document, ctx.deadline, secrets=slots.values(items))
    if ran.code != program.OK:
        failed = program.failure(argv, ran)
        raise Answered(failed, failed.detail)
    return program.answered(argv, ran) if hook == "show" else {}
