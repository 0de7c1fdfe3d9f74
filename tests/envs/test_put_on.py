"""The success conditions of put-on tasks say what they should about states made by hand."""

import pytest

import envs
from envs.geometry import PlanarPose
from envs.manipulation import ManipulationEnv
from envs.objects import SPOON, TOWEL
from envs.table import TABLE_HEIGHT


@pytest.fixture(scope="module")
def env() -> ManipulationEnv:
    return envs.make("widowx_spoon_on_towel", render=False)


def put(env: ManipulationEnv, dx: float, height: float, settle: int = 200) -> None:
    """Place the spoon `dx` [m] beside the towel's centre, `height` [m] above the table, and let it fall."""
    env.reset(seed=0)
    env.world.place(TOWEL.name, PlanarPose(-0.16, 0.10), TABLE_HEIGHT + TOWEL.rest_height)
    env.world.place(SPOON.name, PlanarPose(-0.16 + dx, 0.10), TABLE_HEIGHT + height)
    env.world.advance(settle)


def test_lying_on_the_towel_is_a_strict_success(env: ManipulationEnv) -> None:
    put(env, dx=0.0, height=0.02)
    success = env.task.success(env.world)
    assert success.official
    assert success.strict


def test_hovering_above_the_towel_is_only_an_official_success(env: ManipulationEnv) -> None:
    put(env, dx=0.0, height=0.03, settle=1)
    success = env.task.success(env.world)
    assert success.official
    assert not success.strict


@pytest.mark.parametrize(("dx", "height"), [(0.09, 0.02), (0.0, 0.08)])
def test_beside_or_high_above_the_towel_is_no_success(env: ManipulationEnv, dx: float, height: float) -> None:
    put(env, dx=dx, height=height, settle=1)
    assert not env.task.success(env.world).official


def test_official_starts_are_simpler_s(env: ManipulationEnv) -> None:
    assert env.grid_size == 24
    starts = [env.task.official_start(k) for k in range(24)]
    corners = {(round(s["spoon"].x, 3), round(s["spoon"].y, 3)) for s in starts}
    assert corners == {(-0.235, -0.075), (-0.235, 0.075), (-0.085, -0.075), (-0.085, 0.075)}
    assert len({(s["spoon"].x, s["spoon"].y, s["towel"].x, s["towel"].y, s["spoon"].yaw) for s in starts}) == 24
