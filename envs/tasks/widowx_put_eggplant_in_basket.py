"""Put the eggplant into the basket that hangs in the sink (SIMPLER `PutEggplantInBasketScene-v0`)."""

import math

import numpy as np

from envs.geometry import PlanarPose
from envs.object_model import ObjectModel
from envs.objects.carrot import CARROT
from envs.objects.cubes import GREEN_CUBE, YELLOW_CUBE
from envs.objects.eggplant import EGGPLANT
from envs.robots.widowx import SINK_MOUNT
from envs.scenes.bridge_sink import SCENE
from envs.tasks._put_on import Mixture, Place, PutOn, PutOnTask

_BASKET = Place("basket", size=(0.13, 0.08, 0.002), rim=0.050)
_YAWS = (0.0, math.pi / 4, -math.pi / 4)


def _into_basket(model: ObjectModel, words: str) -> PutOn:
    return PutOn(f"put {words} into yellow basket", model, _BASKET, height_tolerance=0.06)


_GOAL = _into_basket(EGGPLANT, "eggplant")
TASK = PutOnTask(
    name="widowx_put_eggplant_in_basket",
    goal=_GOAL,
    scene=SCENE,
    mount=SINK_MOUNT,
    layouts=tuple(
        {"eggplant": PlanarPose(-0.105 + x, 0.206 + y, yaw)}
        for x in (-0.01, 0.01)
        for y in np.linspace(-0.015, 0.015, 4)
        for yaw in _YAWS
    ),
    room=((-0.215, 0.14), (-0.052, 0.27)),
    mixture=Mixture(
        goals=(
            _GOAL,
            _into_basket(CARROT, "carrot"),
            _into_basket(GREEN_CUBE, "green block"),
            _into_basket(YELLOW_CUBE, "yellow block"),
        ),
        yaws={"eggplant": _YAWS, "carrot": (0.0,), "green_cube": (0.0,), "yellow_cube": (0.0,)},
        added=(1, 2),
    ),
    max_steps=120,
)
