"""Every policy in the package loads, fits the robots, and says how it was made."""

import pytest

import envs
from eval.policies import quantities
from eval.rollout import check_fit
from eval.worlds import robot_of
from vla.checkpoints import native
from vla.policy import PRETRAINED, load_policy, model_names


def test_there_is_a_policy_to_start_with() -> None:
    assert "tiny" in model_names()


def trained_on(name: str) -> set[str]:
    """Tasks that were demonstrated."""
    return {
        task for each in native.load(PRETRAINED / name).training["demonstrations"] for task in each["request"]["tasks"]
    }


@pytest.mark.parametrize("name", model_names())
def test_it_loads_and_says_how_it_was_made(name: str) -> None:
    training = native.load(PRETRAINED / name).training
    assert training["finished_steps"] == sum(p["samples"] // p["batch"] for p in training["options"]["phases"])
    assert trained_on(name)
    assert trained_on(name) <= set(envs.TASKS)


@pytest.mark.parametrize("name", model_names())
def test_it_fits_the_robot_of_every_task_it_was_trained_on(name: str) -> None:
    for task in trained_on(name):
        spec = load_policy(name, robot=robot_of(task)).spec
        world = envs.make(task, render=False)
        state = quantities(world.state_names, world.state_units)
        actions = quantities(world.action_names, world.action_units)
        check_fit(spec, state, actions, world.control_period, execute=1)
        assert [camera.name for camera in spec.cameras] == [world.camera_name]


@pytest.mark.parametrize("name", model_names())
def test_it_has_tokens_enough_to_prune(name: str) -> None:
    assert native.load(PRETRAINED / name).model.config.visual_tokens >= 196
