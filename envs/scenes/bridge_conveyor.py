"""The wooden table of the Bridge tasks with a conveyor belt across it."""

from envs.scenes._conveyor import with_conveyor
from envs.scenes.bridge_table import SCENE as TABLE

SCENE = with_conveyor(TABLE, "bridge_conveyor", x=(-0.28, -0.12), y=(-0.74, 0.74))
