"""Wrong use: one exception, whose message says which value, why, and what is accepted."""

from collections.abc import Iterable
from difflib import get_close_matches


class UsageError(ValueError):
    """Something the caller asked for cannot be done; found before any kernel starts."""


def nearest(wrong: str, known: Iterable[str]) -> str:
    """The known names nearest to a wrong one, as a hint: ``did you mean lam?``, or nothing."""
    names = list(known)
    near = [name for name in names if wrong and wrong.lower() in name.lower()]
    near += [name for name in get_close_matches(wrong, names, n=3) if name not in near]
    return f"did you mean {' or '.join(near[:3])}?" if near else ""
