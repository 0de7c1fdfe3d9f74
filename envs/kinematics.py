"""Where an arm's tool is, and which joint positions bring it somewhere else."""

import mujoco
import numpy as np

from envs.geometry import Matrix, Vector, rotation_vector_from_matrix
from envs.robot import Robot

_ITERATIONS = 30
_DAMPING = 1e-5  # squared step below which a singular direction is given up, next to the damping by the error itself
_ROTATION_WEIGHT = 0.15  # [m/rad] a tilt of a few degrees is cheaper than a centimetre
_CONVERGED = 1e-5  # [m] weighted error
_REACHED = 2e-3  # [m] weighted error


class ArmKinematics:
    """Kinematics of one robot's arm in a compiled scene; poses are in the frame of base_link.

    Args:
        robot: the arm.
        model: compiled scene that holds it.
    """

    def __init__(self, robot: Robot, model: mujoco.MjModel) -> None:
        self._model = model
        self._scratch = mujoco.MjData(model)  # kinematics of hypothetical joint positions
        self._base = model.body("base_link").id
        self._tcp = model.site("tcp").id
        joints = [model.joint(servo.joint) for servo in robot.arm]
        self._qpos = np.array([joint.qposadr[0] for joint in joints])
        self._dofs = np.array([joint.dofadr[0] for joint in joints])
        self._lowest, self._highest = np.array([joint.range for joint in joints]).T
        self._weights = np.array(robot.ik_joint_weights)
        self._jacobian = np.zeros((6, model.nv))

    def joints(self, data: mujoco.MjData) -> Vector:
        """(J,) measured joint positions [rad]."""
        return data.qpos[self._qpos]

    def tool_pose(self, data: mujoco.MjData) -> tuple[Vector, Matrix]:
        """Position (3,) [m] and rotation (3, 3) of the TCP."""
        base_to_world = data.xmat[self._base].reshape(3, 3)
        position = base_to_world.T @ (data.site_xpos[self._tcp] - data.xpos[self._base])
        return position, base_to_world.T @ data.site_xmat[self._tcp].reshape(3, 3)

    def forward(self, joints: Vector) -> tuple[Vector, Matrix]:
        """The tool pose at joint positions (J,) [rad]."""
        self._scratch.qpos[self._qpos] = joints
        mujoco.mj_kinematics(self._model, self._scratch)
        return self.tool_pose(self._scratch)

    def inverse(self, position: Vector, rotation: Matrix, start: Vector) -> tuple[Vector, bool]:
        """Joint positions (J,) [rad] near `start` that bring the TCP to a pose, within the joint limits.

        Levenberg-Marquardt: damped least squares, damped more the larger the error, with joint and rotation weights.

        Returns:
            the joint positions, as near to the pose as was found, and whether they reach it.
        """
        joints = np.clip(start, self._lowest, self._highest)
        best, least = joints, np.inf
        for _ in range(_ITERATIONS):
            error = self._error(joints, position, rotation)
            size = float(np.linalg.norm(error))
            if size < least:
                best, least = joints, size
            if size < _CONVERGED:
                break
            joints = np.clip(joints + self._step(error, joints), self._lowest, self._highest)
        return best, bool(least < _REACHED)

    def _error(self, joints: Vector, position: Vector, rotation: Matrix) -> Vector:
        reached, reached_rotation = self.forward(joints)
        turn = rotation_vector_from_matrix(rotation @ reached_rotation.T)
        return np.concatenate([position - reached, _ROTATION_WEIGHT * turn])

    def _step(self, error: Vector, joints: Vector) -> Vector:
        """Joint step (J,) [rad] that reduces the weighted error (6,); `joints` are those of the last `forward`.

        A joint that the step would push out of its range stays, and the others do without it.
        """
        jacobian = self._weighted_jacobian()
        weights = self._weights.copy()
        damping = (_DAMPING + error @ error) * np.eye(6)
        while True:
            weighted = jacobian * weights
            step = weighted.T @ np.linalg.solve(weighted @ jacobian.T + damping, error)
            stuck = ((joints <= self._lowest) & (step < 0)) | ((joints >= self._highest) & (step > 0))
            if not stuck.any():
                return step
            weights[stuck] = 0.0

    def _weighted_jacobian(self) -> Matrix:
        """(6, J) change of the weighted tool pose with the joints."""
        mujoco.mj_comPos(self._model, self._scratch)  # mj_jacSite needs the subtree centres of mass
        mujoco.mj_jacSite(self._model, self._scratch, self._jacobian[:3], self._jacobian[3:], self._tcp)
        base_from_world = self._scratch.xmat[self._base].reshape(3, 3).T
        columns = self._jacobian[:, self._dofs]
        return np.concatenate([base_from_world @ columns[:3], _ROTATION_WEIGHT * base_from_world @ columns[3:]])
