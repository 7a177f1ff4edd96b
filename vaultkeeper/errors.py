"""Every error that a person may see: what happened, why, what works right now, what to do next.

One root, `VaultkeeperError`. Only the command line turns an error into an exit code, by its `exit_code`
(the table stands in DESIGN.md section 7). No error ever carries a secret value: whoever raises one from a
driver's exception does so `from None`, because drivers quote their arguments.
"""

from __future__ import annotations

from typing import ClassVar


class VaultkeeperError(Exception):
    """Root of all errors. `code` names the kind of failure and never changes; the texts may."""

    code: ClassVar[str] = "VK-UNEXPECTED"
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, why: str = "", works: str = "", next: str = "") -> None:  # noqa: A002 - the field's word
        super().__init__(what)
        self.what = what
        self.why = why
        self.works = works
        self.next = next

    def __str__(self) -> str:
        return f"{self.what}: {self.why}" if self.why else self.what


class UsageError(VaultkeeperError):
    """The command line was used wrongly."""

    code = "VK-USAGE"
    exit_code = 2


class PolicyInvalid(VaultkeeperError):
    """A policy file, or a setting in it, cannot be accepted. `why` lists every finding with file:line:column."""

    code = "VK-POLICY"
    exit_code = 3


class ConfigurationInvalid(VaultkeeperError):
    """The installation itself (paths, environment, state of a newer version) cannot be used as it is."""

    code = "VK-CONFIG"
    exit_code = 3


class NotAuthorised(VaultkeeperError):
    """A file, key or state directory may not be used by this user, or its mode is too open."""

    code = "VK-AUTH"
    exit_code = 4


class NoKey(VaultkeeperError):
    """No age identity was found, or none of those found opens this ciphertext."""

    code = "VK-KEY"
    exit_code = 4


class EnvelopeInvalid(VaultkeeperError):
    """A ciphertext is damaged, or belongs to another secret, version or installation (invariant 10)."""

    code = "VK-ENVELOPE"
    exit_code = 4


class RotationFailed(VaultkeeperError):
    """A rotation did not succeed; every consumer still holds an accepted value."""

    code = "VK-ROTATION"
    exit_code = 5


class HalfApplied(VaultkeeperError):
    """A rotation stands half-way and some consumer may hold a refused value: act now."""

    code = "VK-HALF"
    exit_code = 6


class Locked(VaultkeeperError):
    """Somebody else holds this secret, group or state directory, or the secret is paused."""

    code = "VK-LOCKED"
    exit_code = 7


class AlreadyOpen(Locked):
    """A rotation of this secret is open already (invariant 4)."""

    code = "VK-OPEN"


class EpochLost(Locked):
    """Another process took this rotation over; the present one must not write any more."""

    code = "VK-EPOCH"


class StoreDamaged(VaultkeeperError):
    """The state database fails its integrity check or cannot be read. Nothing was changed."""

    code = "VK-STORE"


class StoreFull(VaultkeeperError):
    """The disk that holds the state is full. Nothing was changed at any target."""

    code = "VK-FULL"
    exit_code = 5


class AuditUnwritable(VaultkeeperError):
    """The audit log cannot be written, so nothing is changed at a target (invariant 14)."""

    code = "VK-AUDIT"
    exit_code = 5


class BackendError(VaultkeeperError):
    """A target or destination could not be used as configured; for `check` and `doctor`, not for rotation outcomes."""

    code = "VK-BACKEND"
    exit_code = 3


class ChecksNothing(BackendError):
    """A target let us in without checking the credential (`trust`, anonymous): nothing can be proven there."""

    code = "VK-UNCHECKED"


class Unavailable(VaultkeeperError):
    """A system that holds a credential does not answer now; nothing was done that needs it."""

    code = "VK-UNAVAILABLE"
    exit_code = 3


class NotFound(UsageError):
    """No secret, rotation or version of that name."""

    code = "VK-NAME"
