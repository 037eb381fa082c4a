"""dbvalet's own image, built once a run by deploy/build-image."""

import shutil
import subprocess
from functools import cache
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
NAME = "dbvalet-test/dbvalet"


class NotBuilt(Exception):
    """The image cannot be built; the text says why."""


@cache
def own_image() -> str:
    """Build the image, or find it built of the same files, and return its name.

    Raises: NotBuilt, when there is no Docker or a step of the Dockerfile fails
    """
    if shutil.which("docker") is None:
        raise NotBuilt("docker is not installed: scripts/test gets it on Debian and Ubuntu, as root")
    built = subprocess.run([CHECKOUT / "deploy/build-image", NAME], capture_output=True, text=True, check=False)
    if built.returncode != 0:
        raise NotBuilt(built.stderr)
    return NAME
