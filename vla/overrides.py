"""Command lines of other commands: values in the form in which Hydra reads them as what they are."""

import re
from typing import Any


def argument(name: str, value: Any) -> str:
    """`name=value` for a command line that Hydra reads, so that any text arrives as the text it is.

    Args:
        name: key.
        value: None, truth value, number, text, or a list of such; anything else is written as its text.
    """
    return f"{name}={_literal(value)}"


def _literal(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_literal, value))}]"
    return _quoted(str(value))


def _quoted(text: str) -> str:
    literal = text.replace("${", r"\${")
    escaped = re.sub(r"(\\*)('|$)", lambda end: 2 * end[1] + (r"\'" if end[2] else ""), literal)
    return f"'{escaped}'"
