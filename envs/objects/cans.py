"""Cans of six drinks, each full or opened (empty)."""

from dataclasses import dataclass

import mujoco
import numpy as np

from envs.object_model import ObjectModel, RoundGrasp
from envs.objects import _labels
from envs.objects._lying import STANDING
from envs.objects._shapes import Revolved, add_standing_cylinder
from envs.textures import Image, add_material, painted

_METAL, _HOLE = (186, 188, 192), (28, 28, 30)
_PIXELS = 128


@dataclass(frozen=True)
class _Can:
    """A kind of can.

    Attributes:
        name: of its mesh.
        radius: [m]
        height: [m]
    """

    name: str
    radius: float
    height: float

    def shape(self) -> Revolved:
        """A straight side that narrows to a rim at both ends; the lid lies a little lower than its rim."""
        r, h = self.radius, self.height / 2
        base = ((0.0, -h + 0.005), (r - 0.012, -h + 0.004), (r - 0.010, -h), (r - 0.007, -h), (r, -h + 0.009))
        top = ((r, h - 0.013), (r - 0.005, h - 0.002), (r - 0.006, h), (r - 0.008, h - 0.003), (0.0, h - 0.003))
        return Revolved(self.name, base + top)

    def picture(self, label: _labels.Label, is_open: bool) -> Image:
        """The label around the side, bare metal at both ends, and a hole in the lid of an open can."""
        angle, radius, z = self.shape().pixels(_PIXELS, _PIXELS)
        panel = np.pi / 2  # [rad]; panels face +x, +y, -x and -y
        x = ((angle + panel / 2) % panel - panel / 2) * self.radius
        metal = (np.abs(z) > self.height / 2 - 0.0055) | (radius < self.radius - 0.0065)
        across, along = radius * np.cos(angle), radius * np.sin(angle)
        lid = metal & (z > 0)
        seam = lid & (np.abs(radius - self.radius + 0.009) < 0.001)
        hole = lid & (np.hypot(across - 0.013, along) < 0.008) if is_open else np.zeros_like(lid)
        return painted(label(x, z), [(metal, _METAL), (seam, (120, 122, 126)), (hole, _HOLE)])


_STANDARD = _Can("can", radius=0.033, height=0.123)
_SLIM = _Can("slim_can", radius=0.02925, height=0.132)
_FULL, _EMPTY = 1000.0, 50.0  # [kg/m^3]; an opened can weighs 20 g
_GRASP_ABOVE = 0.030  # [m] of a standing can's middle: fingers from above reach its upper half


def _model(drink: str, label: _labels.Label, can: _Can, is_open: bool) -> ObjectModel:
    name = f"opened_{drink}_can" if is_open else f"{drink}_can"

    def build(scene: mujoco.MjSpec, body: mujoco.MjsBody) -> None:
        half = can.height / 2
        add_standing_cylinder(body, radius=can.radius, bottom=-half, top=half, density=_EMPTY if is_open else _FULL)
        material = add_material(scene, name, can.picture(label, is_open), specular=0.6, shininess=0.6)
        can.shape().add_to(scene, body, material=material)

    return ObjectModel(
        name=name,
        words=f"{drink} can",
        size=(2 * can.radius, 2 * can.radius, can.height),
        build=build,
        grasp=RoundGrasp(width=2 * can.radius, axis=(0, 0, 1), above_standing=_GRASP_ABOVE),
        lying=STANDING,
    )


# Sizes and densities: ManiSkill2_real2sim `data/custom/info_pick_custom_v0.json`, except that its box of the opened
# redbull can (0.172 m) is longer than the can itself (0.132 m, as the full one).
COKE_CAN = _model("coke", _labels.coke, _STANDARD, is_open=False)
OPENED_COKE_CAN = _model("coke", _labels.coke, _STANDARD, is_open=True)
PEPSI_CAN = _model("pepsi", _labels.pepsi, _STANDARD, is_open=False)
OPENED_PEPSI_CAN = _model("pepsi", _labels.pepsi, _STANDARD, is_open=True)
SPRITE_CAN = _model("sprite", _labels.sprite, _STANDARD, is_open=False)
OPENED_SPRITE_CAN = _model("sprite", _labels.sprite, _STANDARD, is_open=True)
SEVEN_UP_CAN = _model("7up", _labels.seven_up, _STANDARD, is_open=False)
OPENED_SEVEN_UP_CAN = _model("7up", _labels.seven_up, _STANDARD, is_open=True)
FANTA_CAN = _model("fanta", _labels.fanta, _STANDARD, is_open=False)
OPENED_FANTA_CAN = _model("fanta", _labels.fanta, _STANDARD, is_open=True)
REDBULL_CAN = _model("redbull", _labels.redbull, _SLIM, is_open=False)
OPENED_REDBULL_CAN = _model("redbull", _labels.redbull, _SLIM, is_open=True)
