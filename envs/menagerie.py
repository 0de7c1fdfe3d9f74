"""Robots that wear the meshes of MuJoCo Menagerie (github.com/google-deepmind/mujoco_menagerie).

Only what is seen changes: links, joints, servos, tool frame, camera and collision shapes stay our own, so every task
stays the task it is. The meshes take our materials, so that variants of the arm's colour hold.
"""

from pathlib import Path

import mujoco

from envs.errors import EnvError
from envs.robot import Mount, Robot
from envs.scene import HIDDEN

_MODELS = {"widowx": Path("trossen_wx250s", "wx250s.xml"), "google_robot": Path("google_robot", "robot.xml")}

# Menagerie fixes Google's head to its base; ours can be tilted. Mesh -> the body that wears it, at its origin.
_HEAD = {"link_head_pan_v": "head_pan", "link_head_tilt_v": "head_tilt"}


def spec(robot: Robot, mount: Mount, checkout: Path) -> mujoco.MjSpec:
    """`Robot.spec` with Menagerie's meshes in place of our shapes.

    Args:
        robot: one that Menagerie has.
        mount: how it is set up.
        checkout: directory that holds `trossen_wx250s` and `google_robot`.

    Raises:
        EnvError: if the checkout, the robot or one of its meshes is not there, or has links that ours has not.
    """
    source = _read(robot, checkout)
    dressed = robot.spec(mount)
    meshes = [geom for geom in source.geoms if _is_seen(geom)]
    wearers = [_wearer(dressed, geom) for geom in meshes]
    for shape in (shape for body in wearers for shape in body.geoms):
        shape.group = HIDDEN
    for body, geom in zip(wearers, meshes, strict=True):
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_MESH,
            meshname=_mesh(dressed, source, geom.meshname),
            pos=[0, 0, 0] if geom.meshname in _HEAD else geom.pos,
            quat=geom.quat,
            material=body.first_geom().material,
            contype=0,
            conaffinity=0,
            mass=0,
        )
    return dressed


def _read(robot: Robot, checkout: Path) -> mujoco.MjSpec:
    if robot.name not in _MODELS:
        raise EnvError(f"robot_assets: Menagerie has no {robot.name}; it has {', '.join(_MODELS)}")
    file = checkout / _MODELS[robot.name]
    if not file.is_file():
        raise EnvError(
            f"robot_assets={checkout} has no {_MODELS[robot.name]}; it must be a checkout of "
            "https://github.com/google-deepmind/mujoco_menagerie"
        )
    try:
        return mujoco.MjSpec.from_file(str(file))
    except ValueError as error:
        raise EnvError(f"{file} is not a model that MuJoCo {mujoco.__version__} can read: {error}") from error


def _is_seen(geom: mujoco.MjsGeom) -> bool:
    """Whether it is one of Menagerie's visual meshes."""
    return geom.type == mujoco.mjtGeom.mjGEOM_MESH and not geom.contype and not geom.conaffinity


def _wearer(dressed: mujoco.MjSpec, geom: mujoco.MjsGeom) -> mujoco.MjsBody:
    """Our body for a mesh: Menagerie names its bodies alike, some behind the robot's name and a slash."""
    name = _HEAD.get(geom.meshname, geom.parent.name.rpartition("/")[2])
    body = dressed.body(name)
    if body is None:
        raise EnvError(f"robot_assets: {geom.meshname} belongs to {geom.parent.name}, and ours has no {name}")
    return body


def _mesh(dressed: mujoco.MjSpec, source: mujoco.MjSpec, name: str) -> str:
    """The name under which a mesh of the source is in the dressed robot; added there the first time."""
    worn = f"menagerie_{name}"
    if dressed.mesh(worn) is None:
        mesh = source.mesh(name)
        file = Path(source.modelfiledir, source.meshdir, mesh.file)
        if not file.is_file():
            raise EnvError(f"robot_assets: the mesh {file} is missing; is the checkout complete (git lfs, sparse)?")
        dressed.add_mesh(name=worn, file=str(file), scale=mesh.scale)
    return worn
