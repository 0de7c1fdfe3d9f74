"""Which recipes there are, in their own words."""

from itertools import takewhile

from vla import recipe as recipes


def recipes_and_summaries() -> list[tuple[str, str]]:
    """Each recipe's name and the comment that its file begins with."""
    return [(name, _comment((recipes.recipes_directory() / f"{name}.yaml").read_text())) for name in recipes.names()]


def _comment(text: str) -> str:
    lines = takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.removeprefix("#").strip() for line in lines)
