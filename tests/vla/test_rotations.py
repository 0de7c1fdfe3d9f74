"""Rotation vectors from roll, pitch and yaw agree with SciPy's."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.spatial.transform import Rotation

from vla.rotations import rotation_vector

ANGLE = st.floats(-4, 4, width=32)


@given(arrays.arrays(np.float32, (5, 3), elements=ANGLE))
def test_it_is_the_same_rotation(euler: np.ndarray) -> None:
    ours = Rotation.from_rotvec(rotation_vector(euler))
    assert (ours * Rotation.from_euler("xyz", euler).inv()).magnitude().max() < 1e-5


@given(arrays.arrays(np.float32, (5, 3), elements=ANGLE))
def test_it_goes_the_shorter_way(euler: np.ndarray) -> None:
    assert np.linalg.norm(rotation_vector(euler), axis=-1).max() <= np.pi + 1e-5


def test_no_rotation_is_zero_and_a_single_axis_is_itself() -> None:
    np.testing.assert_array_equal(rotation_vector(np.zeros((2, 3))), np.zeros((2, 3)))
    np.testing.assert_allclose(rotation_vector(0.3 * np.eye(3)), 0.3 * np.eye(3), atol=1e-7)
