"""Other words for the same instruction, from a list of patterns."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from vla.api import InputError

_NAME = re.compile(r"\{(\w+)\}")


class Wordings:
    """Patterns and what else one can say.

    Args:
        patterns: a pattern such as `move {thing} near {place}` -> patterns that mean the same, with the same names.

    Raises:
        InputError: naming a pattern that is no text, or that has other names than what it stands for.
    """

    def __init__(self, patterns: Mapping[str, Sequence[str]]) -> None:
        for pattern, others in patterns.items():
            names = set(_NAME.findall(pattern))
            for other in others:
                if not isinstance(other, str) or set(_NAME.findall(other)) != names:
                    raise InputError(f"{other!r} must be a text with the names {sorted(names)} of {pattern!r}")
        self._patterns = {_expression(pattern): others for pattern, others in patterns.items()}

    @classmethod
    def read(cls, path: Path) -> "Wordings":
        """Read a YAML file of patterns.

        Raises:
            InputError: if it is missing or has another form.
        """
        try:
            patterns: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise InputError(f"cannot read wordings from {path}: {error}") from error
        if not isinstance(patterns, dict) or not all(isinstance(others, list) for others in patterns.values()):
            raise InputError(f"{path} must map each pattern to a list of others")
        return cls(patterns)

    def of(self, instruction: str) -> list[str]:
        """What else one can say, by the first pattern that fits; empty if none does."""
        for expression, others in self._patterns.items():
            if found := expression.fullmatch(instruction):
                return [other.format(**found.groupdict()) for other in others]
        return []


def _expression(pattern: str) -> re.Pattern[str]:
    parts = _NAME.split(pattern)  # text, name, text, name, …, text
    return re.compile("".join(f"(?P<{part}>.+?)" if i % 2 else re.escape(part) for i, part in enumerate(parts)))
