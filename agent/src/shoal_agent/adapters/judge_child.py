"""The script of a judging child: finds the agent's modules and hands over to `shoal_agent.adapters.judge_hearing`."""

from __future__ import annotations

import json
import sys


def main() -> None:
    """Answer one question."""
    order = json.loads(sys.stdin.buffer.readline())
    sys.path[:] = order["path"]
    from shoal_agent.adapters.judge_hearing import hear  # noqa: PLC0415 - its path came with the order

    hear(order)


if __name__ == "__main__":
    main()
