"""The simulated server's own idea of stored passwords; it shares nothing with what it is to judge."""

from __future__ import annotations

import hashlib
import secrets

SHA2, NATIVE = "caching_sha2_password", "mysql_native_password"

_SHA_CRYPT = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_GROUPS = ((0, 10, 20), (21, 1, 11), (12, 22, 2), (3, 13, 23), (24, 4, 14), (15, 25, 5), (6, 16, 26), (27, 7, 17),
           (18, 28, 8), (9, 19, 29))  # fmt: skip


def stored_form(plugin: str, password: bytes) -> str:
    """What the server keeps of a password (8.4.1.2, 8.4.1.1)."""
    if not password:
        return ""
    if plugin == NATIVE:
        return "*" + sha1(sha1(password)).hex().upper()
    salt = bytes(secrets.choice([c for c in range(1, 128) if c != ord("$")]) for _ in range(20))
    return f"$A$005${salt.decode('ascii')}{sha_crypt(password, salt, 5000)}"


def fits(plugin: str, stored: str, password: bytes) -> bool:
    """Full authentication: the password itself against what is kept."""
    if not stored or not password:
        return not stored and not password
    if plugin == NATIVE:
        return stored == stored_form(NATIVE, password)
    rounds, rest = int(stored[3:6], 16) * 1000, stored[7:].encode()
    return sha_crypt(password, rest[:20], rounds).encode() == rest[20:]


def is_stored_form(plugin: str, text: str) -> bool:
    """Does `AS 'auth_string'` have the format of its plugin (15.7.1.1)?"""
    if plugin == NATIVE:
        return len(text) == 41 and text[0] == "*" and set(text[1:]) <= set("0123456789ABCDEF")
    return len(text.encode()) == 70 and text.startswith("$A$") and set(text[27:]) <= set(_SHA_CRYPT)


def sha1(data: bytes) -> bytes:
    """Twice over it makes the stored form of mysql_native_password."""
    return hashlib.sha1(data, usedforsecurity=False).digest()


def sha_crypt(password: bytes, salt: bytes, rounds: int) -> str:
    """Ulrich Drepper's SHA-crypt with SHA-256, from its description; not shared with what it is to judge."""
    alternate = hashlib.sha256(password + salt + password).digest()
    start = hashlib.sha256(password + salt)
    for at in range(0, len(password), 32):
        start.update(alternate[: len(password) - at])
    bits = len(password)
    while bits > 0:
        start.update(alternate if bits % 2 else password)
        bits //= 2
    running = start.digest()
    p_sum, s_sum = hashlib.sha256(), hashlib.sha256()
    for _ in password:
        p_sum.update(password)
    for _ in range(16 + running[0]):
        s_sum.update(salt)
    p = b"".join(p_sum.digest()[: len(password) - at] for at in range(0, len(password), 32))
    s = s_sum.digest()[: len(salt)]
    for turn in range(rounds):
        one = hashlib.sha256(p if turn % 2 else running)
        if turn % 3:
            one.update(s)
        if turn % 7:
            one.update(p)
        one.update(running if turn % 2 else p)
        running = one.digest()
    groups = [(running[a] << 16 | running[b] << 8 | running[c], 4) for a, b, c in _GROUPS]
    groups.append((running[31] << 8 | running[30], 3))
    return "".join(_SHA_CRYPT[value >> 6 * place & 63] for value, size in groups for place in range(size))
