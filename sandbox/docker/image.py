"""The one image there is: a container sees the programs of this machine.

There is no registry to pull from, and images of the sandbox (``sandbox.images``) are commands of
this machine anyway. So the image holds next to nothing: the links and directories of a root file
system, and the files of /etc that everybody may read. /usr, the Python that the sandbox runs with
and the project itself are mounted from the machine, read only.
"""

from __future__ import annotations

import io
import stat
import sys
import tarfile
from pathlib import Path

from sandbox.settings import ROOT

EMPTY = ("dev", "home", "proc", "root", "run", "sys", "tmp", "var", "var/lib", "var/log", "var/tmp")
MERGED = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
"""Links into /usr, or directories where the machine has not merged them."""
OWN_ETC = ("hostname", "hosts", "mtab", "resolv.conf")
"""Files of /etc that Docker makes for each container."""
MAX_FILE_BYTES = 1 << 20


def root_file_system() -> bytes:
    """A tar archive of what the image holds."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in EMPTY:
            _add_directory(archive, name, 0o1777 if name.endswith("tmp") else 0o755)
        for name in MERGED:
            if Path("/", name).is_symlink():
                archive.add(Path("/", name), arcname=name)
        archive.add("/etc", filter=_public)
    return buffer.getvalue()


def binds() -> list[str]:
    """What is mounted into every container, as ``docker run --volume`` takes it."""
    wanted = [Path("/usr"), ROOT, Path(sys.prefix), Path(sys.base_prefix)]
    wanted += [Path("/", name) for name in MERGED if not Path("/", name).is_symlink()]
    # Under its own name and, as links may lead to it from there, under the real one.
    places = {place for path in wanted if path.exists() for place in (path, path.resolve())}
    above = [path for path in places if not places & set(path.parents)]
    return [f"{path}:{path}:ro" for path in sorted(above)]


def _add_directory(archive: tarfile.TarFile, name: str, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    archive.addfile(entry)


def _public(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """What may be copied of /etc: secrets stay where they are."""
    if entry.name.removeprefix("etc/") in OWN_ETC or not (entry.isdir() or entry.issym()):
        readable = entry.isfile() and entry.mode & stat.S_IROTH and entry.size <= MAX_FILE_BYTES
        if not readable or entry.name.removeprefix("etc/") in OWN_ETC:
            return None
    return entry
