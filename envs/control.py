"""End-effector delta control: actions move a target pose, inverse kinematics turns it into joint targets.

After SIMPLER's `arm_pd_ee_target_delta_pose_align2`: a new target is the previous *target* moved by (dp, dR) in the
base frame. Accumulating on the target keeps a slow arm from losing commanded motion. The rotation turns the target
about itself; SIMPLER turns it about the measured tool, which also moves a target that the tool has not reached yet.
"""

import mujoco
import numpy as np

from envs.geometry import Matrix, Vector, matrix_from_rotation_vector, rotation_vector_from_matrix
from envs.robot import Robot

_ITERATIONS = 15
_DAMPING = 3e-4
_ROTATION_WEIGHT = 0.15  # metres per radian: a tilt of a few degrees is cheaper than a centimetre


class EndEffectorController:
    """Tracks tool targets of one arm in one simulation.

    Args:
        robot: the arm.
        model: compiled scene that holds it.
    """

    def __init__(self, robot: Robot, model: mujoco.MjModel) -> None:
        self.robot = robot
        self._model = model
        self._scratch = mujoco.MjData(model)  # kinematics of hypothetical joint positions
        self._base = model.body("base_link").id
        self._tcp = model.site("tcp").id
        joints = [model.joint(servo.joint) for servo in robot.arm]
        self._qpos = np.array([joint.qposadr[0] for joint in joints])
        self._dofs = np.array([joint.dofadr[0] for joint in joints])
        self._ranges = np.array([joint.range for joint in joints])
        self._arm_actuators = np.array([model.actuator(servo.joint).id for servo in robot.arm])
        self._finger_actuators = np.array([model.actuator(servo.joint).id for servo in robot.gripper])
        self._jacobian = np.zeros((6, model.nv))
        self.target_position: Vector = np.zeros(3)
        self.target_rotation: Matrix = np.eye(3)
        self._target_joints: Vector = np.zeros(len(joints))

    def reset(self, data: mujoco.MjData) -> None:
        """Take the measured pose as target and hold it with the gripper open."""
        self._target_joints = data.qpos[self._qpos].copy()
        self.target_position, self.target_rotation = self.tool_pose(data)
        data.ctrl[self._arm_actuators] = self._target_joints
        data.ctrl[self._finger_actuators] = self.robot.finger_targets[1]

    def tool_pose(self, data: mujoco.MjData) -> tuple[Vector, Matrix]:
        """Position (3,) [m] and rotation (3, 3) of the TCP in the base frame."""
        base_to_world = data.xmat[self._base].reshape(3, 3)
        position = base_to_world.T @ (data.site_xpos[self._tcp] - data.xpos[self._base])
        return position, base_to_world.T @ data.site_xmat[self._tcp].reshape(3, 3)

    def command(self, data: mujoco.MjData, action: Vector) -> bool:
        """Move the targets by one action (dx dy dz [m], rotation vector [rad], gripper +1 open .. -1 closed).

        Returns:
            whether the action was clipped: a target outside the workspace, or a gripper command beyond +-1.
        """
        lowest, highest = np.array(self.robot.workspace)
        wanted = self.target_position + action[:3]
        self.target_position = np.clip(wanted, lowest, highest)
        self.target_rotation = matrix_from_rotation_vector(action[3:6]) @ self.target_rotation
        self._target_joints = self.inverse_kinematics(self.target_position, self.target_rotation)
        data.ctrl[self._arm_actuators] = self._target_joints
        opening = float(np.clip(action[6], -1.0, 1.0))
        closed, opened = self.robot.finger_targets
        data.ctrl[self._finger_actuators] = closed + (opening + 1) / 2 * (opened - closed)
        return bool(np.any(wanted != self.target_position) or opening != action[6])

    def inverse_kinematics(self, position: Vector, rotation: Matrix) -> Vector:
        """Joint positions (J,) [rad] near the previous target that bring the TCP to a pose in the base frame.

        Damped least squares with joint and rotation weights; out of reach it ends as near as the joint limits let it.
        """
        joints = self._target_joints.copy()
        weights = np.array(self.robot.ik_joint_weights)
        for _ in range(_ITERATIONS):
            error, jacobian = self._error_and_jacobian(joints, position, rotation)
            weighted = jacobian * weights
            gram = weighted @ jacobian.T + _DAMPING * np.eye(6)
            joints = np.clip(joints + weighted.T @ np.linalg.solve(gram, error), *self._ranges.T)
        return joints

    def _error_and_jacobian(self, joints: Vector, position: Vector, rotation: Matrix) -> tuple[Vector, Matrix]:
        self._scratch.qpos[self._qpos] = joints
        mujoco.mj_kinematics(self._model, self._scratch)
        mujoco.mj_comPos(self._model, self._scratch)  # mj_jacSite needs the subtree centres of mass
        mujoco.mj_jacSite(self._model, self._scratch, self._jacobian[:3], self._jacobian[3:], self._tcp)
        base_to_world = self._scratch.xmat[self._base].reshape(3, 3)
        current_position, current_rotation = self.tool_pose(self._scratch)
        turn = rotation_vector_from_matrix(rotation @ current_rotation.T)
        error = np.concatenate([position - current_position, _ROTATION_WEIGHT * turn])
        columns = self._jacobian[:, self._dofs]
        jacobian = np.concatenate([base_to_world.T @ columns[:3], _ROTATION_WEIGHT * base_to_world.T @ columns[3:]])
        return error, jacobian
