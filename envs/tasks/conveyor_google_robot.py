"""Pick the coke can that rides on a conveyor belt, standing or lying across or along it."""

from envs.tasks._conveyor_pick import ConveyorPickTask
from envs.tasks._pick import ORIENTATIONS

TASK = ConveyorPickTask("conveyor_google_robot", "opened_coke_can", "opened_pepsi_can", ORIENTATIONS)
