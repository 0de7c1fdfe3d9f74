"""Menagerie's meshes change what is seen of a robot, and nothing that a task could feel."""

import math
import shutil
from pathlib import Path

import mujoco
import numpy as np
import pytest
from numpy.typing import NDArray

from envs import menagerie
from envs.control import EndEffectorController
from envs.errors import EnvError
from envs.geometry import PlanarPose, Vector
from envs.robot import Mount, Robot
from envs.robots import google_robot, widowx
from envs.scene import FOREGROUND, HIDDEN
from tests.envs.arms import data_at

MOUNTS = {
    "widowx": widowx.TABLE_MOUNT,
    "google_robot": Mount(PlanarPose(0.35, 0.20, math.pi), google_robot.HEIGHT, google_robot.START),
}
ROBOTS = pytest.mark.parametrize("robot", [widowx.ROBOT, google_robot.ROBOT], ids=lambda robot: robot.name)
TETRAHEDRON = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
WIDOWX_LINKS = ("base", "shoulder", "upper_arm", "upper_forearm", "lower_forearm", "wrist", "gripper")
GOOGLE_LINKS = ("torso", "shoulder", "bicep", "elbow", "forearm", "wrist", "gripper")


def nested(bodies: tuple[str, ...], inside: str = "") -> str:
    """Bodies in one another; each wears the mesh of its own name and has a shape that collides."""
    for name in reversed(bodies):
        mesh = name.rpartition("/")[2]
        inside = f"""<body name="{name}" pos="0 0 0.1">
            <geom class="visual" mesh="{mesh}" pos="0.01 0.02 0.03"/><geom type="sphere" size="0.01"/>{inside}</body>"""
    return inside


def model(meshes: tuple[str, ...], bodies: str) -> str:
    assets = "".join(f'<mesh class="small" file="{mesh}.obj"/>' for mesh in meshes)
    return f"""<mujoco><compiler meshdir="assets"/>
        <default>
            <default class="small"><mesh scale="0.1 0.1 0.1"/></default>
            <default class="visual"><geom type="mesh" contype="0" conaffinity="0" group="2"/></default>
        </default>
        <asset>{assets}</asset><worldbody>{bodies}</worldbody></mujoco>"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the files, bodies and meshes of Menagerie's two robots, as far as we use them."""
    root = tmp_path_factory.mktemp("mujoco_menagerie")
    links = tuple(f"{link}_link" for link in WIDOWX_LINKS)
    fingers = "".join(nested((f"wx250s/{side}_finger_link",)) for side in ("left", "right"))
    meshes = (*links, "left_finger_link", "right_finger_link")
    write(root / "trossen_wx250s" / "wx250s.xml", meshes, nested(tuple(f"wx250s/{link}" for link in links), fingers))

    links = ("base_link", *(f"link_{link}" for link in GOOGLE_LINKS))
    fingers = tuple((f"link_finger_{side}", f"link_finger_tip_{side}") for side in ("left", "right"))
    heads = ("link_head_pan_v", "link_head_tilt_v")  # Menagerie has them on the base
    on_base = "".join(f'<geom class="visual" mesh="{mesh}" pos="0 0 1"/>' for mesh in heads)
    bodies = nested(links, "".join(map(nested, fingers))).replace("<geom", on_base + "<geom", 1)
    meshes = (*links, *(part for finger in fingers for part in finger), *heads)
    write(root / "google_robot" / "robot.xml", meshes, bodies)
    return root


def write(file: Path, meshes: tuple[str, ...], bodies: str) -> None:
    (file.parent / "assets").mkdir(parents=True)
    file.write_text(model(meshes, bodies))
    for mesh in meshes:
        (file.parent / "assets" / f"{mesh}.obj").write_text(TETRAHEDRON)


def is_worn(model: mujoco.MjModel) -> NDArray[np.bool_]:
    """(geoms,) which are meshes that are drawn."""
    return (model.geom_type == mujoco.mjtGeom.mjGEOM_MESH) & (model.geom_group == FOREGROUND)


@ROBOTS
def test_every_link_wears_a_mesh_and_only_meshes_are_seen(robot: Robot, checkout: Path) -> None:
    dressed = menagerie.spec(robot, MOUNTS[robot.name], checkout).compile()
    worn = is_worn(dressed)
    assert set(dressed.geom_bodyid[worn]) == set(range(1, dressed.nbody))
    assert (dressed.geom_group[~worn] == HIDDEN).all()
    assert not dressed.geom_contype[worn].any()
    assert not dressed.geom_conaffinity[worn].any()


@ROBOTS
def test_meshes_wear_the_robot_s_materials(robot: Robot, checkout: Path) -> None:
    dressed = menagerie.spec(robot, MOUNTS[robot.name], checkout).compile()
    materials = {dressed.mat(index).name for index in dressed.geom_matid[is_worn(dressed)]}
    assert all(name.startswith(f"{robot.name}_") for name in materials)
    assert len(materials) > 1


@ROBOTS
def test_a_mesh_hangs_on_its_link_as_in_menagerie(robot: Robot, checkout: Path) -> None:
    dressed = menagerie.spec(robot, MOUNTS[robot.name], checkout).compile()
    file, theirs, ours = {
        "widowx": ("trossen_wx250s/wx250s.xml", "wx250s/wrist_link", "wrist_link"),
        "google_robot": ("google_robot/robot.xml", "link_wrist", "link_wrist"),
    }[robot.name]
    plain = mujoco.MjModel.from_xml_path(str(checkout / file))

    def pose(model: mujoco.MjModel, body: str) -> Vector:
        is_mesh = model.geom_type == mujoco.mjtGeom.mjGEOM_MESH
        geom = np.flatnonzero(is_mesh & (model.geom_bodyid == model.body(body).id))[0]
        return np.concatenate([model.geom_pos[geom], model.geom_quat[geom], model.geom_size[geom]])

    assert np.allclose(pose(dressed, ours), pose(plain, theirs))


@ROBOTS
def test_nothing_that_a_task_could_feel_changes(robot: Robot, checkout: Path) -> None:
    mount = MOUNTS[robot.name]
    paths = []
    for spec in (robot.spec(mount), menagerie.spec(robot, mount, checkout)):
        spec.option.timestep = robot.physics_step
        compiled = spec.compile()
        data = data_at(robot, compiled, mount.arm)
        controller = EndEffectorController(robot, compiled)
        controller.reset(data)
        for gripper in (1.0, -1.0, -1.0):
            controller.command(data, np.array([0.02, 0.01, 0.01, 0.0, 0.1, 0.0, gripper]))
            controller.advance(data)
        paths.append(data.qpos.copy())
    assert np.array_equal(*paths)


def test_a_missing_checkout_or_robot_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvError, match=r"nowhere has no trossen_wx250s.wx250s\.xml"):
        menagerie.spec(widowx.ROBOT, widowx.TABLE_MOUNT, tmp_path / "nowhere")


def test_a_missing_mesh_is_named(checkout: Path, tmp_path: Path) -> None:
    shutil.copytree(checkout, tmp_path / "partial")
    (tmp_path / "partial" / "trossen_wx250s" / "assets" / "wrist_link.obj").unlink()
    with pytest.raises(EnvError, match=r"wrist_link\.obj"):
        menagerie.spec(widowx.ROBOT, widowx.TABLE_MOUNT, tmp_path / "partial")


def test_a_file_that_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "trossen_wx250s").mkdir()
    (tmp_path / "trossen_wx250s" / "wx250s.xml").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(EnvError, match=r"wx250s\.xml"):
        menagerie.spec(widowx.ROBOT, widowx.TABLE_MOUNT, tmp_path)
