"""Rotations and planar poses in the few forms the world needs (quaternions are w x y z)."""

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class PlanarPose:
    """Where something stands on the table: x, y [m] in the world and yaw [rad]."""

    x: float
    y: float
    yaw: float = 0.0

    def shifted(self, dx: float, dy: float, dyaw: float) -> "PlanarPose":
        return PlanarPose(self.x + dx, self.y + dy, self.yaw + dyaw)


def quaternion_from_yaw(yaw: float) -> Vector:
    """(4,) rotation by `yaw` [rad] about the vertical."""
    return np.array([np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)])


def matrix_from_rotation_vector(rotation_vector: Vector) -> Matrix:
    """(3, 3) rotation by |v| [rad] about v."""
    quaternion, matrix = np.empty(4), np.empty(9)
    angle = float(np.linalg.norm(rotation_vector))
    axis = rotation_vector / angle if angle > 0 else np.array([1.0, 0.0, 0.0])
    mujoco.mju_axisAngle2Quat(quaternion, axis, angle)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


def rotation_vector_from_matrix(matrix: Matrix) -> Vector:
    """(3,) axis times angle [rad], angle at most pi."""
    quaternion, vector = np.empty(4), np.empty(3)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(matrix).reshape(9))
    mujoco.mju_quat2Vel(vector, quaternion, 1.0)
    return vector


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
