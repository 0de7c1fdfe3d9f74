"""Put the spoon that rides on a conveyor belt on the towel."""

from envs.objects.spoon import SPOON
from envs.objects.towel import TOWEL
from envs.tasks._conveyor_put_on import ConveyorPutOnTask

TASK = ConveyorPutOnTask("conveyor_widowx", SPOON, TOWEL)
