"""Rotations and planar poses in the few forms the world needs (quaternions are w x y z)."""

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
Quaternion = tuple[float, float, float, float]
UPRIGHT: Quaternion = (1.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class PlanarPose:
    """Where something stands: x, y [m] in the world, yaw [rad], and how it lies before it is turned by the yaw."""

    x: float
    y: float
    yaw: float = 0.0
    lying: Quaternion = UPRIGHT

    @property
    def quaternion(self) -> Vector:
        """(4,) rotation of the object's frame in the world."""
        product = np.empty(4)
        mujoco.mju_mulQuat(product, quaternion_from_yaw(self.yaw), np.array(self.lying))
        return product

    def shifted(self, dx: float, dy: float, dyaw: float = 0.0) -> "PlanarPose":
        return PlanarPose(self.x + dx, self.y + dy, self.yaw + dyaw, self.lying)


def quaternion_from_yaw(yaw: float) -> Vector:
    """(4,) rotation by `yaw` [rad] about the vertical."""
    return np.array([np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])


def matrix_from_rotation_vector(rotation_vector: Vector) -> Matrix:
    """(3, 3) rotation by |v| [rad] about v."""
    quaternion = np.empty(4)
    angle = float(np.linalg.norm(rotation_vector))
    axis = rotation_vector / angle if angle > 0 else np.array([1.0, 0.0, 0.0])
    mujoco.mju_axisAngle2Quat(quaternion, axis, angle)
    return matrix_from_quaternion(quaternion)


def matrix_from_quaternion(quaternion: Vector) -> Matrix:
    """(3, 3) rotation of a quaternion (w x y z)."""
    matrix = np.empty(9)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


def rotation_vector_from_matrix(matrix: Matrix) -> Vector:
    """(3,) axis times angle [rad], angle at most pi."""
    vector = np.empty(3)
    mujoco.mju_quat2Vel(vector, quaternion_from_matrix(matrix), 1.0)
    return vector


def quaternion_from_matrix(matrix: Matrix) -> Vector:
    """(4,) quaternion (w x y z) of a (3, 3) rotation."""
    quaternion = np.empty(4)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(matrix).reshape(9))
    return quaternion


def roll_pitch_yaw(matrix: Matrix) -> Vector:
    """(3,) angles [rad] with matrix = Rz(yaw) Ry(pitch) Rx(roll)."""
    return np.array(
        [
            np.arctan2(matrix[2, 1], matrix[2, 2]),
            np.arctan2(-matrix[2, 0], np.hypot(matrix[0, 0], matrix[1, 0])),
            np.arctan2(matrix[1, 0], matrix[0, 0]),
        ]
    )


def wrap(angle: float, lowest: float, period: float) -> float:
    """The angle [rad] shifted by whole periods into [lowest, lowest + period)."""
    return float((angle - lowest) % period + lowest)
