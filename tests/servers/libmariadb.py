"""MariaDB's own client library, through ctypes: a client that knows nothing of PyMySQL. Logs in at MySQL too."""

from __future__ import annotations

import ctypes
import threading
from functools import cache

from tests.servers import ServerMissing

CONNECT_TIMEOUT = 0  # of mysql_option, include/mysql.h
_LOCK = threading.Lock()
REFUSED = {1045, 1698, 3118, 4151}  # wrong, wrong, locked (MySQL), locked (MariaDB)


def login(port: int, username: str, password: str, *, host: str = "127.0.0.1") -> bool:
    """True accepted, False refused; anything else raises OSError, without the password."""
    with _LOCK:
        library = _library()
    handle = library.mysql_init(None)
    seconds = ctypes.c_uint(60)
    library.mysql_options(handle, CONNECT_TIMEOUT, ctypes.byref(seconds))
    texts = (host.encode(), username.encode(), password.encode())
    try:
        if library.mysql_real_connect(handle, *texts, None, port, None, 0):
            return True
        number = library.mysql_errno(handle)
    finally:
        library.mysql_close(handle)
    if number not in REFUSED:
        raise OSError(f"the login of {username} ended with error {number}")
    return False


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libmariadb.so.3")
    except OSError:
        raise ServerMissing("libmariadb.so.3 is not installed (Debian: libmariadb3)") from None
    library.mysql_server_init(0, None, None)  # the first mysql_init would, and not for several threads at once
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    library.mysql_init.argtypes, library.mysql_init.restype = [pointer], pointer
    library.mysql_options.argtypes = [pointer, ctypes.c_int, pointer]
    library.mysql_real_connect.argtypes = [pointer, text, text, text, text, ctypes.c_uint, text, ctypes.c_ulong]
    library.mysql_real_connect.restype = pointer
    library.mysql_errno.argtypes = [pointer]
    library.mysql_close.argtypes = [pointer]
    return library
