"""Put the spoon on the towel (SIMPLER `PutSpoonOnTableClothInScene-v0`)."""

import math

from envs.objects import SPOON, TOWEL
from envs.robots.widowx import ROBOT
from envs.tasks._put_on import PutOn

TASK = PutOn(
    name="widowx_spoon_on_towel",
    robot=ROBOT,
    instruction="put the spoon on the towel",
    source=SPOON,
    target=TOWEL,
    half_edge=0.075,
    yaws=((0.0, 0.0), (math.pi / 2, 0.0)),
)
