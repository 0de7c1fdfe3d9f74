"""A belt that carries objects across the surface of another scene, along the world's y axis."""

from dataclasses import replace

import mujoco

from envs.object_model import OBJECT_FRICTION, VISUAL_ONLY
from envs.scene import HIDDEN, SCENERY, Scene

CONVEYOR = "conveyor"  # name of the belt's body, joint and motor

_TRAVEL = 1.5  # [m] that the carrier is longer than the belt at each end, so that it never runs out
_RAISED = 0.0008  # [m] of the belt above the surface: objects rest on it and not on the table
_THICKNESS = 0.004  # [m] of the carrier
_RAIL = 0.008  # [m] width of the rails
_MASS, _GAIN = 50.0, 1e6  # [kg], [N s/m]: nothing that a hand can do slows it
_RUBBER, _METAL = (0.33, 0.34, 0.36, 1.0), (0.62, 0.64, 0.66, 1.0)


def with_conveyor(scene: Scene, name: str, x: tuple[float, float], y: tuple[float, float]) -> Scene:
    """The scene with a belt on its surface.

    What is seen lies still; what carries is an unseen slab that only objects touch, longer than the belt and moved by a
    motor, so that objects ride on it by friction and at its speed.

    Args:
        scene: what to add to.
        name: of the new scene.
        x: (lowest, highest) across the belt [m].
        y: (lowest, highest) along it [m].
    """

    def build(spec: mujoco.MjSpec) -> None:
        scene.build(spec)
        _add_looks(spec, scene.surface, x, y)
        _add_carrier(spec, scene.surface, x, y)

    return replace(scene, name=name, build=build)


def _add_looks(spec: mujoco.MjSpec, surface: float, x: tuple[float, float], y: tuple[float, float]) -> None:
    middle_x, middle_y, half_y = sum(x) / 2, sum(y) / 2, (y[1] - y[0]) / 2
    parts = [(middle_x, (x[1] - x[0]) / 2, _RUBBER), *((edge, _RAIL / 2, _METAL) for edge in x)]
    for number, (place, half, colour) in enumerate(parts):
        height = _RAISED / 2 * (1 + 0.2 * (number > 0))  # rails a little higher, so that they are seen on the rubber
        spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=[place, middle_y, surface + height],
            size=[half, half_y, height],
            rgba=colour,
            group=SCENERY,
            **VISUAL_ONLY,
        )


def _add_carrier(spec: mujoco.MjSpec, surface: float, x: tuple[float, float], y: tuple[float, float]) -> None:
    top = surface + _RAISED
    body = spec.worldbody.add_body(name=CONVEYOR, pos=[sum(x) / 2, sum(y) / 2, top - _THICKNESS / 2])
    body.add_joint(name=CONVEYOR, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, 1, 0])
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=[(x[1] - x[0]) / 2, (y[1] - y[0]) / 2 + _TRAVEL, _THICKNESS / 2],
        group=HIDDEN,
        contype=0,
        conaffinity=2,  # objects; the robot's fingers press on the table below
        friction=OBJECT_FRICTION,
        mass=_MASS,
    )
    motor = spec.add_actuator(name=CONVEYOR, target=CONVEYOR, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    motor.gaintype, motor.biastype = mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtBias.mjBIAS_AFFINE
    motor.gainprm[0], motor.biasprm[2] = _GAIN, -_GAIN
