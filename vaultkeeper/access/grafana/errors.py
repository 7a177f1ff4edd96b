"""What Grafana's answers mean (recorded from 12.4.0), each failure an error of its own. Pure.

A wrong password and a name with five failed logins in five minutes are refused in the same words. `Unauthorized`
without a `messageId` is said of a deleted token, of any credential while Grafana's own database fails, and of a wrong
password where anonymous access is on: `Unsaid`, until `access/grafana.py` has asked further. 304 is said of a change
that was not made. Only fixed texts and names of Grafana's own reach an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from vaultkeeper.access.answer import Answered
from vaultkeeper.model.outcome import Login, No, Refused, Unknown

LOCKED_FOR = timedelta(seconds=310)
"""After so long a name with failed logins is free again: each counts for 300 s."""

_NEEDED = re.compile(r"Permissions needed: ([\w.]+:[\w.]+)")
_NOT_WORDS = re.compile(r"[^\w .,'-]")


class GrafanaError(Answered):
    """Grafana did not do what was asked."""


class LoginRefused(GrafanaError):
    """401. For a password it may also be that its name is locked."""

    by_token = False
    unsaid = False  #: Grafana gave no reason, and says that it is well

    @property
    def later(self) -> Refused | Unknown:
        """What a hook answers that comes after `check`, which this login passed.

        A name that is locked is free again in five minutes. If the password was changed instead, a person is told;
        neither is a reason to undo anything.
        """
        if self.by_token:
            return self.unknown if self.unsaid else Refused(No.PRIVILEGE, self.what)
        return Unknown(Login.THROTTLED, f"{self.what}; {self.next}", LOCKED_FOR)


class Unsaid(GrafanaError):
    """401, and no word of why."""


class RightMissing(GrafanaError):
    """403: who asked may not do this. Where anonymous access is on, it may also be that nobody knows who asked."""


class ReadOnly(GrafanaError):
    """403: the data source belongs to a provisioning file."""


class NotThere(GrafanaError):
    """404 in Grafana's own words."""

    message_id = ""  #: what is not there, where Grafana has a word for it


class Stale(GrafanaError):
    """409: somebody else changed it since it was read."""


class Misunderstood(GrafanaError):
    """400 and its like: refused as it stands, and nothing was done."""

    message_id = ""  #: why, where Grafana has a word for it
    said = ""  #: its sentence


class ServerFailed(GrafanaError):
    """5xx: begun, and failed somewhere. A password that is too short for an admin's set is told like this too."""


class NoAnswer(GrafanaError):
    """Nothing came in time. What was asked may have been done."""


class NotGrafana(GrafanaError):
    """Something else answered: a proxy's page, a redirect, a reply cut short."""


def meaning(  # noqa: PLR0911 - one return a row
    host: str, name: str | None, call: str, status: int, document: object
) -> GrafanaError:
    """Of a reply that is neither 200 nor 201. `name`: who asked; None: a token."""
    told: Mapping[str, Any] = document if isinstance(document, dict) else {}
    message, message_id = str(told.get("message", "")), str(told.get("messageId", ""))
    match status:
        case 401:
            return _unauthorised(host, name, message, message_id)
        case 403 if message == "Cannot update read-only data source":
            return ReadOnly(Refused(No.UNSUPPORTED, message), message)
        case 403 if message.startswith("Not allowed to reset password"):
            return form_is_off(host)
        case 403:
            return _forbidden(host, name, call, message)
        case 404 if message:
            what = f"{host}: {call}: {_words(message)}"
            absent = NotThere(Refused(No.UNSUPPORTED, what), what)
            absent.message_id = message_id
            return absent
        case 409:
            what = f"{host}: {call}: somebody else changed it meanwhile"
            return Stale(Refused(No.CONFLICT, what), what)
        case 429:
            what = f"{host}: too many requests, says something before Grafana"
            return NotGrafana(Unknown(Login.THROTTLED, what, timedelta(minutes=1)), what)
        case 304 | 400 | 405 | 412 | 413 | 415 | 422:
            because = f": {_words(message_id or message)}" if message_id or message else ""
            what = f"{host}: {call} was refused ({status}{because})"
            misunderstood = Misunderstood(Refused(No.UNSUPPORTED, what), what)
            misunderstood.message_id, misunderstood.said = message_id, message
            return misunderstood
        case _ if status >= 500:
            what = f"{host}: {call} failed with {status}"
            return ServerFailed(Unknown(Login.UNREACHABLE, what), what, next="look at Grafana's log")
        case _:
            return not_grafana(host, f"{status} to {call}, in words that are not its own")


def _unauthorised(host: str, name: str | None, message: str, message_id: str) -> GrafanaError:
    match message_id:
        case "password-auth.failed" | "api-key.invalid" | "api-key.expired":
            return login_refused(host, name)
        case "passwordless.invalid.login-attempt":
            what = f"{host}: after too many failed logins from this address no password is looked at"
            return GrafanaError(Unknown(Login.THROTTLED, what, LOCKED_FOR), what)
        case "auth.unauthorized":
            what = f"{host} saw no credential: basic auth is off, or a proxy takes it away"
            return _unusable(what, "set enabled = true in [auth.basic], and let the proxy pass Authorization on")
        case "api-key.organization-mismatch":
            return _unusable(f"{host}: the token belongs to another organisation", "give that one's number as `org`")
        case "identity.disabled":
            return _unusable(f"{host}: the account of {_shown(name)} is disabled", "enable it in Grafana")
        case "" if message == "Unauthorized":
            what = f"{host} lets nobody in: its own database does not answer"
            return Unsaid(Unknown(Login.UNREACHABLE, what), what, next="look at Grafana's log")
        case _:
            return not_grafana(host, "401 in words that are not its own")


def login_refused(host: str, name: str | None) -> LoginRefused:
    """Of a password, or of a token where `name` is None."""
    if name is None:
        return token_refused(f"{host}: the token was refused")
    what = (
        f"{host}: {name} was refused: a wrong password, or five failed logins of that name within five minutes "
        "(Grafana says the same of both)"
    )
    return LoginRefused(Refused(No.PRIVILEGE, what), what, next="compare the password, and wait five minutes")


def token_refused(what: str) -> LoginRefused:
    """Tokens are never locked: refused is refused."""
    refusal = LoginRefused(Refused(No.PRIVILEGE, what), what, next="make another one in Grafana")
    refusal.by_token = True
    return refusal


def form_is_off(host: str) -> RightMissing:
    """`[auth] disable_login_form`."""
    what = f"{host}: while its login form is disabled Grafana lets no admin set a password"
    return RightMissing(Refused(No.UNSUPPORTED, what), what, next="use `admin: self`, which still works")


def lacking(host: str, name: str | None, action: str, scope: str = "") -> RightMissing:
    """A right, named as Grafana names it, and how a person gives it in the open source edition, which has roles."""
    what = f"{host}: {_shown(name)} lacks {action}" + (f" on {scope}" if scope else "")
    match action.partition(":")[0]:
        case "serviceaccounts":
            next_ = "give it the role Admin, or Edit on this one service account (Permissions on the account's page)"
        case "datasources":
            next_ = "give it the role Admin in this organisation"
        case _:
            next_ = "make it a server admin (Administration, Users, Grafana Admin); tokens cannot be one"
    return RightMissing(Refused(No.PRIVILEGE, what), what, next=next_)


def _forbidden(host: str, name: str | None, call: str, message: str) -> RightMissing:
    needed = _NEEDED.search(message)
    if needed:
        return lacking(host, name, needed[1])
    what = f"{host}: {_shown(name)} may not {call}"
    return RightMissing(Refused(No.PRIVILEGE, what), what, next="see that `org` is an organisation that it is in")


def no_answer(told: str) -> NoAnswer:
    """`told`: what the transport says."""
    return NoAnswer(Unknown(Login.UNREACHABLE, told), told, next="see that Grafana runs and `url` is right")


def not_grafana(host: str, said: str) -> NotGrafana:
    """`said`: what it was instead."""
    what = f"{host}: not Grafana answered: {said}"
    return NotGrafana(Unknown(Login.UNREACHABLE, what), what, next="give the address that Grafana has behind it")


def _shown(name: str | None) -> str:
    return name if name is not None else "the token"


def _words(said: str) -> str:
    """Of Grafana's own sentence, without what could have come from somebody."""
    return _NOT_WORDS.sub(" ", said)[:120].strip()


def _unusable(what: str, next_: str) -> GrafanaError:
    return GrafanaError(Refused(No.UNSUPPORTED, what), what, next=next_)
