"""What the tasks on Bridge's table share: everything that can be asked for there, and where things stand."""

import math

from envs.objects.carrot import CARROT
from envs.objects.cubes import GREEN_CUBE, YELLOW_CUBE
from envs.objects.plate import PLATE
from envs.objects.spoon import SPOON
from envs.objects.towel import TOWEL
from envs.tasks._layout import Room
from envs.tasks._put_on import Mixture, PutOn

SPOON_ON_TOWEL = PutOn("put the spoon on the towel", SPOON, TOWEL)
CARROT_ON_PLATE = PutOn("put carrot on plate", CARROT, PLATE, alone=True)
GREEN_ON_YELLOW = PutOn("stack the green block on the yellow block", GREEN_CUBE, YELLOW_CUBE, alone=True)
YELLOW_ON_GREEN = PutOn("stack the yellow block on the green block", YELLOW_CUBE, GREEN_CUBE, alone=True)

CENTRE = (-0.16, 0.00)  # of the squares on whose corners objects stand [m]
ROOM: Room = ((-0.33, -0.19), (0.01, 0.19))
SPOON_YAWS = (0.0, math.pi / 2)
CARROT_YAWS = (math.pi, -math.pi / 2)

MIXTURE = Mixture(
    goals=(SPOON_ON_TOWEL, CARROT_ON_PLATE, GREEN_ON_YELLOW, YELLOW_ON_GREEN),
    yaws={
        "spoon": SPOON_YAWS,
        "towel": (0.0,),
        "carrot": CARROT_YAWS,
        "plate": (0.0,),
        "green_cube": (0.0,),
        "yellow_cube": (0.0,),
    },
    added=(1, 2),
)
