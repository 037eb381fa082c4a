"""The server's own programs, taken out of its container with the libraries they need, to be run on this machine."""

import io
import tarfile
from pathlib import Path
from typing import Any

from tests.live.servers import LiveServer

NAMES = {"mysql": ("mysqldump", "mysql"), "mariadb": ("mariadb-dump", "mariadb")}

LOADER = "ld-linux-x86-64.so.2"

# Each file under the name by which it is looked for, whatever it links to.
PACK = 'tar --create --dereference $(for p in "$@"; do echo "$p"; ldd "$p" | grep -o "/[^ ]*"; done | sort -u)'


def take_programs(live: LiveServer, folder: Path) -> None:
    """Put the dump tool and the client of a server into a folder, as programs of that name."""
    libraries = folder / "lib"
    libraries.mkdir(parents=True)
    paths = [f"/usr/bin/{name}" for name in NAMES[live.flavour]]
    ran: Any = live.container.get_wrapped_container().exec_run(["sh", "-c", PACK, "pack", *paths], demux=True)
    packed, complaints = ran.output
    assert ran.exit_code == 0, complaints
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is not None:
                path = libraries / Path(member.name).name
                path.write_bytes(file.read())
                path.chmod(0o755)
    for name in NAMES[live.flavour]:
        write_script(folder / name, f'exec {libraries}/{LOADER} --library-path {libraries} {libraries}/{name} "$@"')


def write_script(path: Path, *lines: str) -> None:
    path.write_text("\n".join(("#!/bin/sh", *lines, "")))
    path.chmod(0o755)
