"""The YAML file of the configuration, as text: what its keys mean is for `agent.settings`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from agent.errors import SettingsError


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the keys and values of a file.

    Raises: SettingsError
    """
    import yaml

    # The parser in C where PyYAML was built with it: a file of a hundred databases takes 5 ms instead of 66.
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        text = path.read_bytes()
        _check_node(path, yaml.compose(text, Loader=loader))
        loaded: Any = yaml.load(text, Loader=loader)  # noqa: S506 - safe loaders both
    except OSError as problem:
        raise SettingsError("--config", f"{path} cannot be read: {problem.strerror}") from None
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise SettingsError("--config", f"{path} is not YAML{where}") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise SettingsError("--config", f"{path} must hold keys and values")
    return {str(key): value for key, value in cast(dict[Any, Any], loaded).items()}


def _check_node(path: Path, node: Any, above: frozenset[int] = frozenset()) -> None:
    """Refuse a key that stands twice, of which PyYAML silently takes the last, and an alias inside its own anchor."""
    import yaml

    if id(node) in above:
        raise SettingsError("--config", f"{path} refers to itself in line {node.start_mark.line + 1}")
    if isinstance(node, yaml.SequenceNode):
        for element in node.value:
            _check_node(path, element, above | {id(node)})
    elif isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else f"a key in line {key.start_mark.line + 1}"
            if name in seen:
                raise SettingsError(name, f"stands twice in {path}, again in line {key.start_mark.line + 1}")
            seen.add(name)
            _check_node(path, value, above | {id(node)})


def interpolated(value: Any, environ: Mapping[str, str], key: str = "") -> Any:
    """Put variables in place of `${VAR}`, however deep in lists and keys; `$${` stands for `${` itself.

    Raises: SettingsError, when one is not set
    """
    if isinstance(value, dict):
        items = cast(dict[Any, Any], value)
        return {k: interpolated(v, environ, f"{key}.{k}".lstrip(".")) for k, v in items.items()}
    if isinstance(value, list):
        elements = cast(list[Any], value)
        return [interpolated(v, environ, f"{key}.{n}") for n, v in enumerate(elements)]
    if not isinstance(value, str):
        return value

    def put(match: re.Match[str]) -> str:
        if match[0].startswith("$$"):
            return match[0][1:]
        if match[1] not in environ:
            raise SettingsError(key, f"the variable {match[1]} is not set")
        return environ[match[1]]

    return re.sub(r"\$?\$\{([A-Za-z_][A-Za-z0-9_]*)\}", put, value)
