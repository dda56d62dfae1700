"""Lists in pages: `{items, next_cursor}`, where a cursor is opaque to the caller."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from shoal_protocol.errors import CallerError

MAX_LIMIT = 500

_Row = TypeVar("_Row")


def page(
    rows: Sequence[_Row], *, limit: int, position: Callable[[_Row], Any], item: Callable[[_Row], Any]
) -> dict[str, Any]:
    """Make one page of up to `limit` rows.

    Args:
        rows: up to `limit + 1` rows from the store, in order; the one too many says that there are more.
        limit: rows of a page.
        position: a row's place in the order, which the store can continue after.
        item: what the caller sees of a row.
    """
    shown = rows[:limit]
    more = len(rows) > limit
    return {
        "items": [item(row) for row in shown],
        "next_cursor": encode_cursor(position(shown[-1])) if more else None,
    }


def encode_cursor(position: Any) -> str:
    """Make a place in a list into text that survives a URL."""
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).rstrip(b"=").decode()


def decode_cursor(cursor: str | None) -> Any:
    """Return the place that `encode_cursor` was given, None for None.

    Raises:
        CallerError: the text is no cursor.
    """
    if cursor is None:
        return None
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, msgspec.DecodeError) as error:
        raise CallerError("this cursor was not given out by a list", hint="start again without a cursor") from error
