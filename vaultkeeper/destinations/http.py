"""Any place that is written and shown by HTTP requests: `write`, `show` and, where it can, `remove`.

For places that vaultkeeper has no destination for. Each request is sent once for every value. `{name}` is its name in
`values` (`value` where the policy has a single one), `{value}` what it shall be; an address takes `{name}` alone, and
a value never stands there. `show` tells what is there: at `value`, a JSON pointer into its reply, or in the whole body;
as it is, in base64, or as its SHA-256 in hex. A hash is enough to compare, not to put back what was there before the
first delivery. 404 and 410, a missing key and null mean that there is nothing. `changed_at`, a pointer to seconds since
the epoch, is needed where the policy has a `confirm`.

What answers to a change mean: as of the target `http`. Redirects are not followed.

Privileges: those that the place asks for; `auth` names the account or the token that has them.
https://www.rfc-editor.org/rfc/rfc6901.html
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from vaultkeeper.access import request, shown
from vaultkeeper.access.answer import Answered, refused, unknown
from vaultkeeper.access.pointer import Pointer, pointed
from vaultkeeper.access.request import Asked, Auth, Changing, Removing, Request
from vaultkeeper.access.settings import Codes, Consumers, host_of
from vaultkeeper.access.shown import Seen, There
from vaultkeeper.errors import BackendError, ConfigurationInvalid
from vaultkeeper.model.outcome import (
    Finding,
    No,
    Proof,
    Refused,
    Result,
    Unknown,
)
from vaultkeeper.model.policy import DestinationSpec
from vaultkeeper.model.secret import GroupKey, SecretBytes, Slot
from vaultkeeper.ports import DeliveryContext, Item, Spot

if TYPE_CHECKING:
    from vaultkeeper.access.http import Reply

MAX_BYTES = 64 << 10


class Show(Request):
    """A request that tells what one value is now."""

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    value: Pointer | None = Field(default=None, description="JSON pointer to the value; absent: the whole body")
    spelt: Literal["text", "base64", "sha256"] = Field(default="text", description="how the value is written there")
    changed_at: Pointer | None = Field(default=None, description="JSON pointer to when it changed, in seconds")
    done: Codes = Field(default=(200,), description="it is there")
    absent: Codes = Field(default=(404, 410), description="there is nothing")


class HttpSettings(Consumers, Asked):
    """What a policy may say beside `kind: http`, `value` or `values`, and `read`."""

    write: Changing = Field(description="stores one value")
    show: Show = Field(description="tells what one value is now")
    remove: Removing | None = Field(default=None, description="takes one value away; without it the first one stays")
    auth: Auth | None = Field(default=None, description="who sends them")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not all(one.in_address() <= {"name"} for one in self.requests):
            raise ValueError("an address takes {name}; a value belongs into the body")
        if not all(one.in_body() <= {"name", "value"} for one in self.requests):
            raise ValueError("a body takes {name} and {value}")
        if "value" not in self.write.in_body():
            raise ValueError("`write` needs a `body` that names {value}")
        if "value" in self.show.in_body():
            raise ValueError("`show` is asked before there is a value: it takes {name} alone")
        if self.confirm is not None and self.show.changed_at is None:
            raise ValueError("`confirm` needs `changed_at` in `show`: when the value changed")
        return self

    @property
    def requests(self) -> Sequence[Request]:
        """Those that are given."""
        return (self.write, self.show) if self.remove is None else (self.write, self.show, self.remove)


class HttpDestination(shown.ShownPlace):
    """One `write` address is one group; its values are written one after the other."""

    kind: ClassVar[str] = "http"
    codec: ClassVar[int] = 1
    proof: ClassVar[Proof] = Proof.DEMONSTRATED
    puts_back: ClassVar[bool] = True
    forbidden: ClassVar[frozenset[str]] = frozenset()
    max_bytes: ClassVar[int | None] = MAX_BYTES
    Settings: ClassVar[type[HttpSettings]] = HttpSettings

    @classmethod
    def open(cls) -> Self:
        return cls()

    def spots(self, spec: DestinationSpec, ctx: DeliveryContext) -> Sequence[Spot] | Unknown:
        settings = _settings(spec)
        address = settings.write.http
        group = GroupKey(f"http:{address}")
        if len(spec.values) > 1 and "name" not in settings.write.in_address() | settings.write.in_body():
            raise ConfigurationInvalid("several values are written to one address", next="write {name} in `write`")
        return [Spot(group, Slot(name or shown.LONE), name, f"{address}: {name or shown.LONE}") for name in spec.values]

    def check(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Sequence[Finding]:
        settings = [_settings(item.spec) for item in items]
        forbidden = dict.fromkeys(one.forbids(asked) for one in settings for asked in one.requests)
        findings = [Finding("refuse", text) for text in forbidden if text]
        if findings:
            return findings
        try:
            self.look(items, ctx)
        except Answered as error:
            return [Finding("refuse" if isinstance(error.result, Refused) else "unchecked", error.what)]
        if any(one.remove is None for one in settings):
            findings.append(Finding("warn", "without `remove` a first delivery cannot go back", "give `remove`"))
        return [*findings, Finding("ok", f"{host_of(settings[0].show.http)} shows what it holds")]

    def look(self, items: Sequence[Item], ctx: DeliveryContext) -> tuple[There, float | None]:
        """Slot → what it holds, absent ones left out; when the last of them changed. Raises Answered."""
        there, changed_at = dict[Slot, Seen](), 0.0
        for item in items:
            asked = _settings(item.spec).show
            reply = _send(asked, item, ctx)
            if reply.status in asked.absent:
                continue
            if reply.status not in asked.done:
                raise _not_shown(asked, reply, item)
            document: Any = None
            if asked.value is not None or asked.changed_at is not None:
                document = request.document(asked, reply)
            seen = _seen(asked, request.whole(asked, reply) if asked.value is None else document)
            if seen is not None:
                there[item.slot] = seen
            if asked.changed_at is not None and seen is not None:
                when = pointed(document, asked.changed_at)
                if isinstance(when, bool) or not isinstance(when, int | float):
                    raise unknown(f"{host_of(asked.http)} tells no time at {asked.changed_at}")
                changed_at = max(changed_at, float(when))
        return there, changed_at

    def deliver(self, group: GroupKey, items: Sequence[Item], ctx: DeliveryContext) -> Result:
        """One request for each value that is not there yet; consumers are told again in either case (after a crash)."""
        wrote = False
        try:
            there, _ = self.look(items, ctx)
            for item, content in shown.lacking(items, there):
                _change(item, content, ctx)
                wrote = True
        except Answered as error:
            # some are written and one is refused: that is no longer "nothing was changed"
            return error.unknown if wrote else error.result
        return self.tell(items, ctx)


# ------------------------------------------------------------------------------------------------------ small parts


def _settings(spec: DestinationSpec) -> HttpSettings:
    return HttpSettings.model_validate(spec.settings)


def _change(item: Item, content: bytes | None, ctx: DeliveryContext) -> None:
    """Raises Answered where it did not become so."""
    settings = _settings(item.spec)
    asked: Changing | Removing | None = settings.write if content is not None else settings.remove
    if asked is None:
        what = f"{item.slot}: nothing was there before, and the policy has no `remove` for it"
        raise refused(No.UNSUPPORTED, what)
    reply = _send(asked, item, ctx, content)
    if reply.status not in asked.done:
        found = request.failure(asked, reply, settings.auth.who if settings.auth else "nobody (there is no `auth`)")
        raise Answered(found, found.detail)


def _seen(asked: Show, found: Any) -> Seen | None:
    """Raises Answered; its text holds nothing of the value."""
    if asked.value is not None:
        found = pointed(found, asked.value)
    if found is None:
        return None
    if isinstance(found, str):
        found = found.encode(errors="surrogatepass")
    if not isinstance(found, bytes):
        raise unknown(f"{host_of(asked.http)} shows no text at {asked.value}")
    match asked.spelt:
        case "sha256":
            return Seen(None, found.strip().lower().decode("ascii", "replace"))
        case "base64":
            try:
                found = base64.b64decode(found, validate=True)
            except ValueError:
                raise unknown(f"{host_of(asked.http)} shows no base64") from None
    return Seen.whole(found)


def _not_shown(asked: Show, reply: Reply, item: Item) -> Answered:
    """401 and 403 are definite; nothing else is."""
    found: Refused | Unknown = request.unanswered(asked, reply)
    if reply.status in (401, 403):
        auth = _settings(item.spec).auth
        found = Refused(No.PRIVILEGE, f"{found.detail}: {auth.who if auth else 'nobody'} may not read there")
    return Answered(found, found.detail)


def _send(asked: Request, item: Item, ctx: DeliveryContext, content: bytes | None = None) -> Reply:
    """Raises Answered where no answer came, and ConfigurationInvalid for an address that may not be asked."""
    settings = _settings(item.spec)
    fields = {"name": SecretBytes(item.slot.encode())}
    if content is not None:
        fields["value"] = SecretBytes(content)
    try:
        who = {} if settings.auth is None else settings.auth.spelt(ctx.credentials)
        return settings.send(asked, {"name": item.slot}, fields, who, ctx.deadline)
    except Answered:
        raise
    except BackendError as error:
        raise unknown(str(error)) from None
