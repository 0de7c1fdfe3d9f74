"""The counter of the coke-can tasks with a conveyor belt across it."""

from envs.scenes._conveyor import with_conveyor
from envs.scenes.google_table import SCENE as COUNTER

SCENE = with_conveyor(COUNTER, "google_conveyor", x=(-0.335, -0.175), y=(-0.0975, 0.5175))
