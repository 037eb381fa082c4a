from typing import Any

known_implementations: dict[str, dict[str, Any]]
