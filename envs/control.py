"""End-effector delta control: an action moves the tool's target pose, inverse kinematics turns it into servo targets.

Both of SIMPLER's controllers (ManiSkill2_real2sim `agents/controllers`) are one law with two settings. The new target
is the reference pose turned by dR about the *measured* tool and moved by dp:

    p' = p_tool + dR (p_reference - p_tool) + dp,    R' = dR R_reference

WidowX (`arm_pd_ee_target_delta_pose_align2`): the reference is the previous target, so a slow arm loses no commanded
motion, and the servos get the new joint targets at once. Google robot
(`arm_pd_ee_delta_pose_align_interpolate_by_planner`): the reference is the measured tool, and the servos follow a
planned joint path that goes on from where the previous one was left.
"""

import mujoco
import numpy as np

from envs.geometry import Matrix, Vector, matrix_from_rotation_vector
from envs.kinematics import ArmKinematics
from envs.planning import plan
from envs.robot import Robot


class EndEffectorController:
    """Tracks tool targets of one arm in one simulation.

    Args:
        robot: the arm.
        model: compiled scene that holds it.

    Attributes:
        target_position: (3,) of the tool, in the base frame [m].
        target_rotation: (3, 3) of the tool, in the base frame.
        servo_targets: (substeps, arm and fingers) of every physics step of the control period [rad or m].
        finger_waypoint: (2,) where the fingers' path is left at the end of the last command's period [m or rad].
    """

    def __init__(self, robot: Robot, model: mujoco.MjModel) -> None:
        self.robot = robot
        self._model = model
        self._kinematics = ArmKinematics(robot, model)
        servos = (*robot.arm, *robot.gripper)
        self._fingers = slice(len(robot.arm), len(servos))
        self._actuators = np.array([model.actuator(servo.joint).id for servo in servos])
        self._qpos = np.array([model.joint(servo.joint).qposadr[0] for servo in servos])
        self._dofs = np.array([model.joint(servo.joint).dofadr[0] for servo in servos])
        self._lag = np.array([servo.damping / servo.stiffness for servo in servos])  # [s]
        self._stretch = np.array([servo.force_limit / servo.stiffness for servo in servos])  # [rad or m]
        self._times = np.linspace(0.0, robot.control_period, robot.substeps + 1)
        self.target_position: Vector = np.zeros(3)
        self.target_rotation: Matrix = np.eye(3)
        self._target_joints: Vector = np.zeros(len(robot.arm))
        self._path: tuple[Matrix, Matrix] | None = None
        self._waypoint = self._waypoint_velocity = self._target_joints
        self.finger_waypoint: Vector = np.zeros(len(robot.gripper))
        self.servo_targets: Matrix = np.zeros((robot.substeps, len(self._actuators)))

    def reset(self, data: mujoco.MjData) -> None:
        """Take the measured pose as target and hold it with the gripper open."""
        self.target_position, self.target_rotation = self.tool_pose(data)
        self._target_joints = self._waypoint = self._kinematics.joints(data)
        self._waypoint_velocity = np.zeros_like(self._waypoint)
        self.finger_waypoint = np.full(len(self.robot.gripper), self.robot.finger_targets[1])
        self.servo_targets[:] = np.concatenate([self._target_joints, self.finger_waypoint])
        data.ctrl[self._actuators] = self.servo_targets[-1]

    def tool_pose(self, data: mujoco.MjData) -> tuple[Vector, Matrix]:
        """Position (3,) [m] and rotation (3, 3) of the TCP in the base frame."""
        return self._kinematics.tool_pose(data)

    def command(self, data: mujoco.MjData, action: Vector) -> bool:
        """Set the targets of the next control period from an action.

        Args:
            data: the measured state.
            action: (7,) dx dy dz [m], rotation vector [rad], gripper +1 open .. -1 closed.

        Returns:
            whether the action was clipped: a tool target outside the workspace or out of the arm's reach, or a gripper
            command beyond +-1.
        """
        opening = float(np.clip(action[6], -1.0, 1.0))
        clipped = self._move_target(data, action[:3], matrix_from_rotation_vector(action[3:6]))
        self.servo_targets[:] = np.hstack([self._arm_path(), self._finger_path(data, opening)])
        return clipped or opening != action[6]

    def advance(self, data: mujoco.MjData, steps: int | None = None) -> None:
        """Run the physics of one control period, or of its first `steps`, after which a path is left where it is then.

        A servo's force K (target - q) - D qdot stays within its limit because the target stays near q + D / K qdot.
        """
        if self._path is not None and steps is not None:
            self._waypoint, self._waypoint_velocity = (values[steps] for values in self._path)
        for targets in self.servo_targets[:steps]:
            relaxed = data.qpos[self._qpos] + self._lag * data.qvel[self._dofs]
            data.ctrl[self._actuators] = np.minimum(
                np.maximum(targets, relaxed - self._stretch), relaxed + self._stretch
            )
            mujoco.mj_step(self._model, data)

    def _move_target(self, data: mujoco.MjData, motion: Vector, turn: Matrix) -> bool:
        """Move the target pose and solve for its joint positions; True if it had to stay short of what was wanted."""
        tool, rotation = self.tool_pose(data)
        from_target = self.robot.moves_from == "target"
        position, rotation = (self.target_position, self.target_rotation) if from_target else (tool, rotation)
        wanted = tool + turn @ (position - tool) + motion
        self.target_position = np.clip(wanted, *np.array(self.robot.workspace))
        self.target_rotation = turn @ rotation
        start = self._target_joints if from_target else self._kinematics.joints(data)
        self._target_joints, reached = self._kinematics.inverse(self.target_position, self.target_rotation, start)
        clipped = not reached or bool(np.any(wanted != self.target_position))
        if not reached:  # what the arm cannot do must not add up
            self.target_position, self.target_rotation = self._kinematics.forward(self._target_joints)
        return clipped

    def _arm_path(self) -> Matrix:
        """(substeps, J) arm servo targets [rad]."""
        if self.robot.arm_motion is None:
            return np.tile(self._target_joints, (self.robot.substeps, 1))
        positions, velocities = plan(
            self._waypoint, self._waypoint_velocity, self._target_joints, self.robot.arm_motion, self._times
        )
        self._path = positions, velocities
        self._waypoint, self._waypoint_velocity = positions[-1], velocities[-1]
        return positions[1:]

    def _finger_path(self, data: mujoco.MjData, opening: float) -> Matrix:
        """(substeps, 2) finger servo targets [m or rad]."""
        closed, opened = self.robot.finger_targets
        goal = np.full(len(self.robot.gripper), closed + (opening + 1) / 2 * (opened - closed))
        if self.robot.gripper_motion is None:
            self.finger_waypoint = goal
            return np.tile(goal, (self.robot.substeps, 1))
        start, velocity = data.qpos[self._qpos[self._fingers]], data.qvel[self._dofs[self._fingers]]
        velocity = np.where(velocity * (goal - start) > 0.0, velocity, 0.0)  # a rebound does not open the hand
        positions, velocities = plan(start, velocity, goal, self.robot.gripper_motion, self._times)
        self.finger_waypoint = positions[-1]
        return (positions + self._lag[self._fingers] * velocities)[1:]  # a velocity target, as an offset in position
