"""Time-optimal joint paths with limited velocity, acceleration and jerk (Ruckig, Berscheid and Kroeger 2021)."""

import numpy as np
from ruckig import InputParameter, Ruckig, Trajectory

from envs.geometry import Matrix, Vector
from envs.robot import MotionLimits

_ROUNDING = 1e-9  # [rad] and [rad/s]


def plan(start: Vector, velocity: Vector, goal: Vector, limits: MotionLimits, times: Vector) -> tuple[Matrix, Matrix]:
    """Path from a moving start to rest at a goal; all joints arrive together.

    Args:
        start: (J,) joint positions [rad].
        velocity: (J,) [rad/s], cut to the limit; the acceleration starts at 0.
        goal: (J,) joint positions [rad].
        limits: the same for every joint.
        times: (T,) when to look at the path [s]; after its end it stays at the goal.

    Returns:
        positions (T, J) [rad] and velocities (T, J) [rad/s].
    """
    joints = len(start)
    there = (np.abs(goal - start) < _ROUNDING) & (np.abs(velocity) < _ROUNDING)  # Ruckig finds no path of no length
    problem = InputParameter(joints)
    problem.current_position = np.where(there, goal, start)
    problem.current_velocity = np.where(there, 0, np.clip(velocity, -limits.velocity, limits.velocity))
    problem.target_position = goal
    problem.max_velocity = [limits.velocity] * joints
    problem.max_acceleration = [limits.acceleration] * joints
    problem.max_jerk = [limits.jerk] * joints
    path = Trajectory(joints)
    Ruckig(joints).calculate(problem, path)
    states = [path.at_time(time) for time in np.minimum(times, path.duration)]
    return np.array([state[0] for state in states]), np.array([state[1] for state in states])
