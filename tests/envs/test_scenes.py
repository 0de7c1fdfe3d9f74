"""Every scene compiles around a robot, holds things up where it says, and can be redecorated by name."""

import importlib
import pkgutil

import mujoco
import numpy as np
import pytest

from envs import objects, scenes
from envs.robot import Robot
from envs.robots import google_robot, widowx
from envs.scene import FOREGROUND, SCENERY, Scene
from envs.scenes import bridge_sink

NAMES = sorted(module.name for module in pkgutil.iter_modules(scenes.__path__) if module.name[0] != "_")
DRAWERS = ("top_drawer", "middle_drawer", "bottom_drawer")


def find(name: str) -> Scene:
    return importlib.import_module(f"envs.scenes.{name}").SCENE


def robot_of(name: str) -> Robot:
    return google_robot.ROBOT if name.startswith("google") else widowx.ROBOT


def compiled(name: str, *things: tuple[str, tuple[float, float, float]]) -> tuple[mujoco.MjModel, mujoco.MjData]:
    """The scene with objects at positions [m]."""
    spec = mujoco.MjSpec()
    find(name).build(spec)
    for thing, position in things:
        objects.find(thing).add_to(spec)
        spec.body(thing).pos = position
    model = spec.compile()
    return model, mujoco.MjData(model)


@pytest.mark.parametrize("name", NAMES)
def test_compiles_around_its_robot_under_its_own_name(name: str) -> None:
    scene, spec = find(name), mujoco.MjSpec.from_file(str(robot_of(name).mjcf))
    scene.build(spec)
    model = spec.compile()
    assert scene.name == name
    assert model.nlight == 1
    assert {"table", "wall", "floor"} <= {model.material(index).name for index in range(model.nmat)}


@pytest.mark.parametrize("name", NAMES)
def test_what_stands_in_the_area_comes_to_rest_on_the_surface(name: str) -> None:
    scene = find(name)
    (low_x, low_y), (high_x, high_y) = scene.area
    corners = [(low_x, low_y), (low_x, high_y), (high_x, low_y), (high_x, high_y)]
    cans = ("coke_can", "pepsi_can", "sprite_can", "fanta_can")
    half = objects.find("coke_can").size[2] / 2
    stand = [(can, (*corner, scene.surface + half + 0.001)) for can, corner in zip(cans, corners, strict=True)]
    model, data = compiled(name, *stand)
    mujoco.mj_step(model, data, nstep=250)
    for can, position in stand:
        np.testing.assert_allclose(data.body(can).xpos, position, atol=0.004)


@pytest.mark.parametrize("name", NAMES)
def test_only_drawers_and_their_cabinet_are_simulated_under_visual_matching(name: str) -> None:
    model, _ = compiled(name)
    drawn = {model.body(body).name for body in model.geom_bodyid[model.geom_group == FOREGROUND]}
    bottoms = {f"{drawer}_bottom" for drawer in DRAWERS}
    assert drawn == ({"cabinet", *DRAWERS, *bottoms} if name == "google_cabinet" else set())
    assert (model.geom_group == SCENERY).any()


@pytest.mark.parametrize("drawer", DRAWERS)
def test_a_drawer_is_pulled_open_by_its_handle_and_stays(drawer: str) -> None:
    model, data = compiled("google_cabinet")
    joint = data.joint(f"{drawer}_joint")
    data.body(drawer).xfrc_applied[0] = 30.0
    mujoco.mj_step(model, data, nstep=150)
    data.body(drawer).xfrc_applied[0] = 0.0
    mujoco.mj_step(model, data, nstep=1000)
    opened = joint.qpos[0]
    assert 0.05 < opened < 0.5
    mujoco.mj_step(model, data, nstep=500)
    assert joint.qpos[0] == pytest.approx(opened, abs=1e-4)
    assert data.ncon == 0


def test_a_finger_fits_behind_every_handle() -> None:
    model, data = compiled("google_cabinet")
    mujoco.mj_forward(model, data)
    for drawer in ("top", "middle", "bottom"):
        handle = data.site(f"{drawer}_handle").xpos
        start, towards_cabinet = handle - [0.0026, 0, 0], np.array([-1.0, 0.0, 0.0])
        distance = mujoco.mj_ray(model, data, start, towards_cabinet, None, 1, -1, np.zeros(1, np.int32))
        assert distance == pytest.approx(0.0274, abs=0.001)


def test_the_eggplant_lies_in_the_basket_where_simplers_target_is() -> None:
    x, y, z = bridge_sink.BASKET
    model, data = compiled("bridge_sink", ("eggplant", (x, y, z + 0.08)))
    mujoco.mj_step(model, data, nstep=750)
    np.testing.assert_allclose(data.body("basket").xipos, bridge_sink.BASKET)
    eggplant = data.body("eggplant").xpos
    np.testing.assert_allclose(eggplant[:2], (x, y), atol=0.01)
    assert 0 < eggplant[2] - z < 0.03
