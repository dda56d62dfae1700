"""Keys that stand twice in a mapping of a YAML document, which YAML forbids and its parsers take the last of. Pure.

Owns the look at nodes as PyYAML composes them; who reads YAML has PyYAML, which this package does not need.
"""

from __future__ import annotations

from typing import Any


def repeated_keys(root: Any) -> list[str]:
    """Return each key that stands twice in a mapping, with its lines.

    Args:
        root: What ``yaml.compose`` gave; None: an empty document.
    """
    found: list[str] = []
    seen: set[int] = set()  # an alias is the node that it names
    left: list[Any] = [] if root is None else [root]
    while left:
        node = left.pop(0)
        if id(node) in seen:
            continue
        seen.add(id(node))
        keys: dict[Any, Any] = {}
        for entry in node.value if isinstance(node.value, list) else ():
            if not isinstance(entry, tuple):
                left.append(entry)
                continue
            key, value = entry
            left.append(value)
            if isinstance(key.value, str):
                first: Any = keys.setdefault((key.tag, key.value), key)
                if first is not key:
                    found.append(f"{key.value!r:.40} (lines {first.start_mark.line + 1} and {key.start_mark.line + 1})")
    return found
