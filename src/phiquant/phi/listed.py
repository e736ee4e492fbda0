"""Names in a sentence: the first few, and how many more there are."""

from collections.abc import Sequence


def listed(names: Sequence[str], limit: int = 3) -> str:
    """`names`, separated by commas; of more than `limit`, the first ones and the number of the
    rest.
    """
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
