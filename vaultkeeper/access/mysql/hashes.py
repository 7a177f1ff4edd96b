"""Stored forms of passwords at MySQL and MariaDB, made and compared here, so that a server sees no password.

`mysql_native_password`: SHA-1 twice, no salt, which only a long random value bears.
`caching_sha2_password`: `$A$`, rounds / 1000 in hexadecimal, `$`, 20 bytes of salt, and the 43 characters of Ulrich
Drepper's SHA-crypt with SHA-256 (https://www.akkadia.org/drepper/SHA-crypt.txt, with this longer salt;
https://dev.mysql.com/doc/refman/8.4/en/caching-sha2-pluggable-authentication.html).
`ed25519` of MariaDB: the public key of RFC 8032 with the whole password as the seed, whatever its length, which no
library offers (https://mariadb.com/kb/en/authentication-plugin-ed25519/).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import string

NATIVE, SHA2, ED25519 = "mysql_native_password", "caching_sha2_password", "ed25519"

_NATIVE = re.compile(r"\*[0-9A-F]{40}")
_SHA2 = re.compile(rb"\$A\$([0-9A-F]{3})\$(.{20})([./0-9A-Za-z]{43})", re.DOTALL)
_ALPHABET = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SALT = string.ascii_letters + string.digits
_MOST_ROUNDS = 50_000  # a tenth of a second of work; a stored form must not be able to stall us
_ORDER = [(i, (i + 10) % 30, (i + 20) % 30) for i in (0, 21, 12, 3, 24, 15, 6, 27, 18, 9)]  # of bytes, three to a group


# -------------------------------------------------------------------------------------------------------------- native


def native(password: bytes) -> str:
    """`*` and 40 hexadecimal digits."""
    return "*" + _sha1(_sha1(password)).hex().upper()


def is_native(stored: str) -> bool:
    """Tell whether some password fits this at all: MariaDB writes `invalid` where none shall."""
    return _NATIVE.fullmatch(stored) is not None


def native_reply(password: bytes, scramble: bytes) -> bytes:
    """What a client answers to a server's scramble of 20 bytes."""
    if not password:
        return b""
    once = _sha1(password)
    mask = _sha1(scramble[:20] + _sha1(once))
    return bytes(a ^ b for a, b in zip(once, mask, strict=True))


def _sha1(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()


# ---------------------------------------------------------------------------------------------- caching_sha2_password


def sha2(password: bytes) -> str:
    """A new stored form with a random salt and 8.x's default of 5000 rounds, which every server takes."""
    salt = "".join(secrets.choice(_SALT) for _ in range(20))
    return f"$A$005${salt}{_crypt(password, salt.encode(), 5000)}"


def is_sha2(stored: str) -> bool:
    """Tell whether this is a stored form of `caching_sha2_password`."""
    return _SHA2.fullmatch(stored.encode()) is not None


def matches_sha2(stored: str, password: bytes) -> bool | None:
    """Does this stored form accept the password? None: too many rounds to tell without a login."""
    found = _SHA2.fullmatch(stored.encode())
    if found is None:
        return False
    rounds = int(found[1], 16) * 1000
    if rounds > _MOST_ROUNDS:
        return None
    return hmac.compare_digest(_crypt(password, found[2], rounds).encode(), found[3])


def _crypt(password: bytes, salt: bytes, rounds: int) -> str:
    """SHA-crypt's digest, without its prefix. The numbers are those of the steps in its description."""
    size = len(password)
    inner = hashlib.sha256(password + salt + password).digest()  # 4 to 8
    mixed = password + salt + _repeated(inner, size)  # 9, 10
    length = size
    while length:  # 11
        mixed += inner if length & 1 else password
        length >>= 1
    digest = hashlib.sha256(mixed).digest()  # 12
    p = _repeated(hashlib.sha256(password * size).digest(), size)  # 13 to 16
    s = _repeated(hashlib.sha256(salt * (16 + digest[0])).digest(), len(salt))  # 17 to 20
    for number in range(rounds):  # 21
        odd = number & 1
        made = (p if odd else digest) + (s if number % 3 else b"") + (p if number % 7 else b"")
        digest = hashlib.sha256(made + (digest if odd else p)).digest()
    return "".join(_spelt(digest[a] << 16 | digest[b] << 8 | digest[c], 4) for a, b, c in _ORDER) + _spelt(
        digest[31] << 8 | digest[30], 3
    )


def _repeated(block: bytes, size: int) -> bytes:
    return (block * (size // len(block) + 1))[:size]


def _spelt(number: int, characters: int) -> str:
    return "".join(_ALPHABET[number >> 6 * place & 63] for place in range(characters))


# ------------------------------------------------------------------------------------------------- MariaDB's ed25519

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_Point = tuple[int, int, int, int]  # extended coordinates, RFC 8032 section 5.1.4
_Y = 4 * pow(5, -1, _P) % _P
_X = 15112221349535400772501151409588531511454012693041857206046113283949847762202
_BASE: _Point = (_X, _Y, 1, _X * _Y % _P)


def ed25519(password: bytes) -> str:
    """The public key as MariaDB stores it: base64 without its padding."""
    scalar, _ = _ed25519_secret(password)
    return base64.b64encode(_packed(_times(scalar))).decode().rstrip("=")


def ed25519_reply(password: bytes, scramble: bytes) -> bytes:
    """A signature of what the server sent."""
    scalar, prefix = _ed25519_secret(password)
    nonce = int.from_bytes(hashlib.sha512(prefix + scramble).digest(), "little") % _L
    first = _packed(_times(nonce))
    bound = hashlib.sha512(first + _packed(_times(scalar)) + scramble).digest()
    return first + ((nonce + int.from_bytes(bound, "little") * scalar) % _L).to_bytes(32, "little")


def _ed25519_secret(password: bytes) -> tuple[int, bytes]:
    digest = hashlib.sha512(password).digest()
    clamped = int.from_bytes(digest[:32], "little") & ~7 & (1 << 254) - 1 | 1 << 254
    return clamped, digest[32:]


def _times(scalar: int) -> _Point:
    found: _Point = (0, 1, 1, 0)
    doubled = _BASE
    while scalar:
        if scalar & 1:
            found = _sum(found, doubled)
        doubled = _sum(doubled, doubled)
        scalar >>= 1
    return found


def _sum(one: _Point, other: _Point) -> _Point:
    a = (one[1] - one[0]) * (other[1] - other[0]) % _P
    b = (one[1] + one[0]) * (other[1] + other[0]) % _P
    c = 2 * one[3] * other[3] * _D % _P
    d = 2 * one[2] * other[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % _P, g * h % _P, f * g % _P, e * h % _P)


def _packed(point: _Point) -> bytes:
    inverse = pow(point[2], -1, _P)
    x, y = point[0] * inverse % _P, point[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")
