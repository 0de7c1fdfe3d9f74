"""Where in a camera's image the things are that are somewhere in the world."""

import mujoco
import numpy as np
from numpy.typing import NDArray

_NEAREST = 1e-3  # [m] in front of the camera


def image_places(
    model: mujoco.MjModel, data: mujoco.MjData, camera: str, points: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Project points of the world.

    Args:
        model, data: of the simulation.
        camera: name of a camera with intrinsics.
        points: (n, 3) [m], in the world frame.

    Returns:
        (n, 2): to the right and down, from -1 at the image's left and upper edge to 1; clipped to [-2, 2] outside.
    """
    number, seen_from = model.camera(camera).id, data.camera(camera)
    right, up, back = seen_from.xmat.reshape(3, 3).T
    towards = points - seen_from.xpos
    depth = np.maximum(-towards @ back, _NEAREST)
    focal_x, focal_y, centre_x, centre_y = model.cam_intrinsic[number]  # [m] on the sensor
    to_the_right, down = focal_x * (towards @ right) / depth - centre_x, centre_y - focal_y * (towards @ up) / depth
    return np.clip(np.stack([to_the_right, down], axis=1) / (model.cam_sensorsize[number] / 2), -2, 2)
