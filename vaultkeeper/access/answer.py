"""An error of this layer that already knows what the hook has to answer."""

from __future__ import annotations

from vaultkeeper.errors import BackendError
from vaultkeeper.model.outcome import Login, No, NotYet, Refused, Unknown


class Answered(BackendError):
    """Something could not be done. `result` is what the hook answers; the text holds no value."""

    def __init__(self, result: Refused | Unknown | NotYet, what: str, *, next: str = "") -> None:  # noqa: A002
        super().__init__(what, next=next)
        self.result = result

    @property
    def unknown(self) -> Unknown:
        """The answer of a hook that only looks and has no other word for it."""
        return self.result if isinstance(self.result, Unknown) else Unknown(Login.UNREACHABLE, self.what)


def refused(why: No, detail: str, *, next: str = "") -> Answered:  # noqa: A002
    """Definite, and nothing was changed."""
    return Answered(Refused(why, detail), detail, next=next)


def unknown(detail: str) -> Answered:
    """It may or may not have happened."""
    return Answered(Unknown(Login.UNREACHABLE, detail), detail)
