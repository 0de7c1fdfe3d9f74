"""`ensemble=n`: the policy is asked at every step, and what its n newest chunks say of it is averaged."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.evaluate import Evaluation
from eval.rollout import Episode, rollout
from eval.sources import Fixed
from tests.eval.test_command import settings
from tests.eval.test_realtime import EPISODE, Watched, realtime
from tests.eval.toy import QUANTITIES, STEPS, ToyWorld, Wanderer
from vla.api import Camera, InputError
from vla.averaging import Averaging
from vla.chunking import AdaptiveEnsemble


def test_an_evaluation_averages_what_the_newest_chunks_say() -> None:
    worlds: list[Watched] = []

    def make(episode: Episode, cameras: Iterable[Camera], film: bool) -> ToyWorld:
        worlds.append(Watched())
        return worlds[-1]

    policy = Wanderer()
    with Evaluation(Fixed(policy), make, execute=3, ensemble=3) as evaluation:
        evaluation.attempt(EPISODE)
    assert policy.asked[EPISODE.session] == STEPS
    other = Watched()
    rollout(other, Wanderer(), EPISODE, AdaptiveEnsemble(3, averaging=Averaging.of(QUANTITIES)))
    np.testing.assert_array_equal(worlds[0].told, other.told)


def test_an_asynchronous_loop_averages_too() -> None:
    first, second = Watched(), Watched()
    realtime("asynchronous", 0).rollout(first, Wanderer(), EPISODE, 1)
    averaged = realtime("asynchronous", 0)
    averaged = type(averaged)(averaged.loop, averaged.latency, ensemble=3)
    averaged.rollout(second, Wanderer(), EPISODE, 1)
    np.testing.assert_array_equal(first.told[0], second.told[0])
    assert not np.array_equal(first.told[2], second.told[2])


def test_it_belongs_to_what_the_episodes_of_a_folder_share(tmp_path: Path) -> None:
    assert "ensemble" not in settings().identity()
    chosen = settings(ensemble=7)
    assert (chosen.rows, chosen.identity()["ensemble"]) == (7, 7)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"ensemble": 0}, "ensemble must be a whole number of at least 1, got 0"),
        ({"ensemble": "adaptive"}, "ensemble must be a whole number"),
        ({"ensemble": 7, "execute": 2}, "leave out execute=2"),
        ({"ensemble": 7, "policy": "expert"}, "ensemble=7 asks a model at every step.*got policy=expert"),
        ({"ensemble": 7, "realtime": True, "loop": "wait"}, "needs loop=asynchronous, got loop=wait"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        settings(**changes)
