"""An image made from this machine's files, for which no registry is asked: busybox, psql, and a consumer's script."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

from tests.servers import ServerMissing

CONSUMER = Path(__file__).parents[1] / "data/consumer/consume"
BUSYBOX = Path("/bin/busybox")
PSQL = Path("/usr/lib/postgresql/15/bin/psql")  # Debian's `psql` is a Perl script that looks for it
FOLDERS = ("bin", "dev", "etc", "proc", "run", "sys", "tmp", "data")


def archive() -> bytes:
    """Return the root file system as a tar for `docker import`. Raises ServerMissing without the programs."""
    for program, package in ((BUSYBOX, "busybox-static"), (PSQL, "postgresql-client-15")):
        if not program.exists():
            raise ServerMissing(f"{program} is not installed: apt-get install {package}")
    if "not a dynamic executable" not in _ldd(BUSYBOX):
        raise ServerMissing(f"{BUSYBOX} is not static: apt-get install busybox-static")
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name in FOLDERS:
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name in {"tmp", "data"} else 0o755
            tar.addfile(folder)
        for source, name in ((BUSYBOX, "bin/busybox"), (PSQL, "bin/psql"), (CONSUMER, "bin/consume")):
            _add(tar, source, name)
        for applet in subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split():
            if applet != "busybox":
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        for library in re.findall(r"(/\S+) \(0x", _ldd(PSQL)):
            _add(tar, Path(library), library.lstrip("/"))
        users = b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"
        passwd = tarfile.TarInfo("etc/passwd")
        passwd.size = len(users)
        tar.addfile(passwd, io.BytesIO(users))
    return made.getvalue()


def _ldd(program: Path) -> str:
    ldd = shutil.which("ldd")
    if ldd is None:
        raise ServerMissing("ldd is not installed")
    said = subprocess.run([ldd, program], capture_output=True, text=True, check=False)
    return said.stdout + said.stderr


def _add(tar: tarfile.TarFile, source: Path, name: str) -> None:
    """The file itself, where it is a symbolic link."""
    entry = tarfile.TarInfo(name)
    content = source.resolve().read_bytes()
    entry.size, entry.mode = len(content), 0o755
    tar.addfile(entry, io.BytesIO(content))
