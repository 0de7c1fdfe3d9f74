"""Rotations as datasets write them and as robots take them (numpy only)."""

import numpy as np
from numpy.typing import NDArray


def rotation_vector(euler: NDArray[np.floating]) -> NDArray[np.float32]:
    """Roll, pitch and yaw about the fixed axes x, y, z, in this order, to a rotation vector (SIMPLER's conversion).

    Args:
        euler: (..., 3) [rad].

    Returns:
        (..., 3) axis times angle [rad], the angle in [0, pi].
    """
    half = np.asarray(euler, np.float64) / 2
    (cr, cp, cy), (sr, sp, sy) = np.moveaxis(np.cos(half), -1, 0), np.moveaxis(np.sin(half), -1, 0)
    w = cr * cp * cy + sr * sp * sy  # unit quaternion of yaw * pitch * roll
    x = sr * cp * cy - cr * sp * sy
    y = cr * sp * cy + sr * cp * sy
    z = cr * cp * sy - sr * sp * cy
    imaginary = np.stack([x, y, z], axis=-1) * np.where(w < 0, -1, 1)[..., None]  # q and -q: take the shorter way
    sine = np.linalg.norm(imaginary, axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, np.abs(w)[..., None])
    scale = np.divide(angle, sine, out=np.full_like(sine, 2.0), where=sine > 1e-12)
    return (imaginary * scale).astype(np.float32)


def euler_angles(vector: NDArray[np.floating]) -> NDArray[np.float32]:
    """The inverse of `rotation_vector`: a rotation vector to roll, pitch and yaw about the fixed axes x, y, z.

    Args:
        vector: (..., 3) axis times angle [rad].

    Returns:
        (..., 3) [rad], the pitch in [-pi/2, pi/2].
    """
    vector = np.asarray(vector, np.float64)
    angle = np.linalg.norm(vector, axis=-1)
    x, y, z = np.moveaxis(vector * (np.sinc(angle / (2 * np.pi)) / 2)[..., None], -1, 0)  # sin(angle / 2) * axis
    w = np.cos(angle / 2)
    roll = np.arctan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    pitch = np.arcsin(np.clip(2 * (w * y - z * x), -1, 1))
    yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    return np.stack([roll, pitch, yaw], axis=-1).astype(np.float32)
