"""A projected point lies where the camera draws it."""

import numpy as np
import pytest

import envs
from envs.projection import image_places

SIDE = 224


@pytest.mark.parametrize("task", ["widowx_stack_cube", "google_robot_pick_coke_can", "google_robot_move_near"])
def test_an_object_is_drawn_where_its_centre_is_projected(task: str) -> None:
    env = envs.make(task, image_size=(SIDE, SIDE))
    env.reset(seed=1)
    model, data = env.world.model, env.world.data
    bodies = env.segmentation()
    seen = [body for body in range(1, model.nbody) if model.body_dofnum[body] == 6 and (bodies == body).sum() > 60]
    assert seen
    for body in seen:
        rows, columns = np.nonzero(bodies == body)
        drawn = np.array([columns.mean(), rows.mean()]) / (SIDE / 2) - 1
        (projected,) = image_places(model, data, env.robot.camera, data.xipos[body][None])
        np.testing.assert_allclose(projected, drawn, atol=0.06)
    env.close()


def test_key_points_say_places_in_the_image() -> None:
    env = envs.make("widowx_spoon_on_towel")
    env.reset(seed=0)
    labels = dict(zip(env.keypoint_names, env.keypoints(), strict=True))
    points = env.judge.keypoints()
    places = image_places(env.world.model, env.world.data, env.robot.camera, np.stack([points.source, points.target]))
    said = [[labels[f"{thing}_{axis}"] for axis in "uv"] for thing in ("source", "target")]
    np.testing.assert_allclose(said, places, atol=1e-6)
    assert np.abs(places).max() < 1
    env.close()


def test_what_is_behind_the_camera_lies_outside_the_image() -> None:
    env = envs.make("widowx_spoon_on_towel")
    env.reset(seed=0)
    camera = env.world.data.camera(env.robot.camera)
    behind = camera.xpos + camera.xmat.reshape(3, 3)[:, 2] + camera.xmat.reshape(3, 3)[:, 0]
    (place,) = image_places(env.world.model, env.world.data, env.robot.camera, behind[None])
    assert np.abs(place).max() == 2
    env.close()
