"""Which recipes and techniques there are, in their own words."""

from itertools import takewhile

from vla import recipe as recipes


def recipes_and_summaries() -> list[tuple[str, str]]:
    """Each recipe's name and the comment that its file begins with."""
    return [(name, _comment((recipes.recipes_directory() / f"{name}.yaml").read_text())) for name in recipes.names()]


def techniques_and_summaries() -> dict[str, list[tuple[str, str]]]:
    """Slot -> each of its methods and the first sentence of its file, for recipes of one's own."""
    from vla.accelerate.techniques import SLOTS, methods, summary  # torch: seconds

    return {slot: [(method, summary(slot, method)) for method in methods(slot)] for slot in SLOTS}


def _comment(text: str) -> str:
    lines = takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.removeprefix("#").strip() for line in lines)
