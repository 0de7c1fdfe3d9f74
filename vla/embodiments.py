"""Robots that published policies were trained on, by the key of their dataset: what its statistics do not say."""

from dataclasses import dataclass

from vla.api import Camera, InputError, Quantity
from vla.processing import EULER, VECTOR

ACTIONS = (
    Quantity("dx", "m"),
    Quantity("dy", "m"),
    Quantity("dz", "m"),
    Quantity("rotation_x", "rad"),
    Quantity("rotation_y", "rad"),
    Quantity("rotation_z", "rad"),
    Quantity("gripper", "1"),
)


@dataclass(frozen=True)
class Embodiment:
    """A robot as a policy sees it.

    Attributes:
        camera: in the size that its images are recorded in.
        period: [s] between actions.
        robot: its name.
        rotation: how numbers 3 to 5 of the dataset's actions say a rotation, as in `Processing`.

    Raises:
        InputError: on an unknown rotation.
    """

    camera: Camera
    period: float
    robot: str = ""
    rotation: str = EULER

    def __post_init__(self) -> None:
        if self.rotation not in (VECTOR, EULER):
            raise InputError(f"rotation must be {VECTOR!r} or {EULER!r}, got {self.rotation!r}")


BRIDGE = Embodiment(Camera("3rd_view_camera", 480, 640), 0.2, "widowx")
FRACTAL = Embodiment(Camera("overhead_camera", 512, 640), 1 / 3, "google_robot")
BY_DATASET = {
    "bridge": BRIDGE,
    "bridge_orig": BRIDGE,
    "bridge_dataset": BRIDGE,
    "fractal20220817_data": FRACTAL,
}
