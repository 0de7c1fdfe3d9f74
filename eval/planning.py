"""Which episodes an evaluation asks for: those of every task, variant and start that its settings name."""

from collections.abc import Callable, Iterable, Sequence

from eval.rollout import Episode
from eval.settings import SETTINGS, Settings
from eval.suites.adapter import SETTING, check, is_foreign
from vla.api import InputError

GROUPS = ("widowx", "google_robot", "conveyor")
BEYOND = "conveyor_"  # tasks that are not SIMPLER's: `all` does not stand for them
RANDOM_EPISODES = 100  # default number of fresh starts: a 95% interval of +-10 points at worst


def plan(
    settings: Settings,
    known: Sequence[str],
    grid_size: Callable[[str], int],
    suite: Callable[[str, str], Sequence[str]],
) -> list[Episode]:
    """Every episode this evaluation asks for.

    Args:
        known: all task names.
        grid_size: task name -> number of official starts.
        suite: task name, setting -> the variants that belong to both.

    Raises:
        InputError: on an unknown task, a variant that a task does not have, or more episodes than there are official
            starts.
    """
    episodes: list[Episode] = []
    for task in resolve(settings.tasks, known):
        count = settings.episodes or (grid_size(task) if settings.starts == "grid" else RANDOM_EPISODES)
        if settings.starts == "grid" and count > grid_size(task):
            raise InputError(
                f"episodes={count}, but {task} has {grid_size(task)} official starts; use starts=random for more"
            )
        setting = SETTING if is_foreign(task) else settings.setting
        for variant in _variants(settings, task, suite):
            common = (setting, settings.starts, settings.seed, variant, settings.scene)
            episodes += [Episode(task, number, *common) for number in range(count)]
    return episodes


def check_pairs(episodes: Iterable[Episode]) -> None:
    """Refuse episodes of which a comparison could say nothing.

    Raises:
        InputError: if a task has a single start, from which no interval can be computed.
    """
    starts: dict[str, set[int]] = {}
    for episode in episodes:
        starts.setdefault(episode.task, set()).add(episode.episode_id)
    if few := [task for task, numbers in starts.items() if len(numbers) < 2]:
        raise InputError(f"a comparison needs at least 2 starts of each task, {few[0]} has 1; raise episodes")


def resolve(names: Iterable[str], known: Sequence[str]) -> list[str]:
    """Task names in the order asked for, each once; `all` stands for SIMPLER's suite, a robot's name for its part.

    Raises:
        InputError: on a name that covers no task, listing what is allowed.
    """
    chosen: dict[str, None] = {}
    for name in names:
        covered = [name] if is_foreign(name) and check(name) else [task for task in known if _covers(name, task)]
        if not covered:
            raise InputError(f"unknown task {name!r}; allowed: {', '.join((*known, *GROUPS, 'all'))}")
        chosen.update(dict.fromkeys(covered))
    if not chosen:
        raise InputError(f"tasks is empty; allowed: {', '.join((*known, *GROUPS, 'all'))}")
    return list(chosen)


def _variants(settings: Settings, task: str, suite: Callable[[str, str], Sequence[str]]) -> Sequence[str]:
    """Variants of a task in the order asked for, each once; any setting's may be asked for by name."""
    if settings.variants is None:
        return suite(task, settings.setting)
    allowed = tuple(dict.fromkeys(name for setting in SETTINGS for name in suite(task, setting)))
    if not settings.variants:
        raise InputError(f"variants is empty; allowed: null, or some of {', '.join(allowed)}")
    if unknown := [name for name in settings.variants if name not in allowed]:
        raise InputError(f"{task} has no variant {unknown[0]!r}; allowed: {', '.join(allowed)}")
    return tuple(dict.fromkeys(settings.variants))


def _covers(name: str, task: str) -> bool:
    if name == "all":
        return not task.startswith(BEYOND)
    return name == task or (name in GROUPS and task.startswith(f"{name}_"))
