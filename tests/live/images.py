"""Say which engine images there are and which of them a test run uses.

The list itself is deploy/engine-images/images.toml, which the images are built from.
"""

import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Engine = Literal["postgresql", "mysql", "mongodb", "influxdb"]
ENGINES: tuple[Engine, ...] = ("postgresql", "mysql", "mongodb", "influxdb")
FLAVOURS: dict[str, Engine] = {
    "postgresql": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
    "mongodb": "mongodb",
    "influxdb": "influxdb",
}

LIST = Path(__file__).parents[2] / "deploy" / "engine-images" / "images.toml"


@dataclass(frozen=True)
class EngineImage:
    """One engine in one version; MariaDB is a flavour of the engine mysql."""

    engine: Engine
    flavour: str
    version: str
    official: str

    @property
    def key(self) -> str:
        """Return the name that --versions and deploy/engine-images/build take, as in `mariadb:10.11`."""
        return f"{self.flavour}:{self.version}"

    @property
    def id(self) -> str:
        return f"{self.flavour}-{self.version}"

    @property
    def is_official(self) -> bool:
        """Tell whether TEST_OFFICIAL_IMAGES, a list of keys with commas between, says to run the official one."""
        return self.key in os.environ.get("TEST_OFFICIAL_IMAGES", "").split(",")

    @property
    def name(self) -> str:
        """Return the name of the Docker image: the official one, or that which deploy/engine-images/build makes."""
        return self.official if self.is_official else f"dbvalet-test/{self.key}"


def read_images() -> tuple[EngineImage, ...]:
    """Return every image of the list, the oldest version of each engine first."""
    images: list[EngineImage] = []
    for key, table in tomllib.loads(LIST.read_text())["image"].items():
        flavour, version = key.split(":")
        if flavour not in FLAVOURS:  # an image that tests of their own take, not one in a list of versions
            continue
        images.append(EngineImage(FLAVOURS[flavour], flavour, version, table["official"]))
    return tuple(images)


IMAGES = read_images()


def find_image(flavour: str, version: str) -> EngineImage:
    """Raises: LookupError."""
    for image in IMAGES:
        if (image.flavour, image.version) == (flavour, version):
            return image
    raise LookupError(f"no image {flavour}:{version}; there are {', '.join(image.key for image in IMAGES)}")


def newest(engine: Engine) -> EngineImage:
    """Return the newest image of an engine; for mysql that is MySQL, not a MariaDB."""
    return [image for image in IMAGES if image.engine == engine][-1]


def choose(engine: Engine, *, every: bool, keys: Sequence[str]) -> tuple[EngineImage, ...]:
    """Return the images of an engine that a run uses: those named, or all, or the oldest and the newest.

    When `keys` names images of other engines only, the choice for this engine is empty.

    Raises: LookupError, when a key names no image.
    """
    of_engine = tuple(image for image in IMAGES if image.engine == engine)
    if keys:
        named = {find_image(*key.split(":", 1)) if ":" in key else find_image(key, "") for key in keys}
        return tuple(image for image in of_engine if image in named)
    if every:
        return of_engine
    return tuple(dict.fromkeys((of_engine[0], of_engine[-1])))
