"""What a task may ask about the running simulation: where things are, what touches what, how fast it moves."""

import mujoco
import numpy as np

from envs.control import EndEffectorController
from envs.geometry import Matrix, PlanarPose, Vector, quaternion_from_yaw, roll_pitch_yaw
from envs.robot import Robot


class World:
    """One compiled scene and its state, read in the vocabulary of the tasks.

    Args:
        robot: the arm in the scene.
        model: the compiled scene.
    """

    def __init__(self, robot: Robot, model: mujoco.MjModel) -> None:
        self.robot = robot
        self.model = model
        self.data = mujoco.MjData(model)
        self.controller = EndEffectorController(robot, model)
        self._base = model.body("base_link").id
        self._fingers = {model.geom(servo.joint).id for servo in robot.gripper}
        self._finger_qpos = [model.joint(servo.joint).qposadr[0] for servo in robot.gripper]

    def position(self, body: str) -> Vector:
        """(3,) centre of mass of a body in the world [m]."""
        return self.data.xipos[self.model.body(body).id].copy()

    def origin(self, body: str) -> Vector:
        """(3,) frame origin of a body in the world [m]."""
        return self.data.xpos[self.model.body(body).id].copy()

    def rotation(self, body: str) -> Matrix:
        """(3, 3) rotation of a body in the world."""
        return self.data.xmat[self.model.body(body).id].reshape(3, 3).copy()

    def in_base(self, position: Vector) -> Vector:
        """A world position (3,) [m] in the robot's base frame."""
        base_to_world = self.data.xmat[self._base].reshape(3, 3)
        return base_to_world.T @ (position - self.data.xpos[self._base])

    def yaw_in_base(self, body: str) -> float:
        """[rad] of a body's x axis about the vertical, in the robot's base frame."""
        base_to_world = self.data.xmat[self._base].reshape(3, 3)
        return float(roll_pitch_yaw(base_to_world.T @ self.rotation(body))[2])

    def speed(self, body: str) -> tuple[float, float]:
        """Linear [m/s] and angular [rad/s] speed of a body."""
        velocity = np.empty(6)
        body_id = self.model.body(body).id
        mujoco.mj_objectVelocity(self.model, self.data, mujoco.mjtObj.mjOBJ_BODY, body_id, velocity, 0)
        return float(np.linalg.norm(velocity[3:])), float(np.linalg.norm(velocity[:3]))

    def touching(self, first: str, second: str) -> bool:
        """Whether two bodies are in contact."""
        pair = {self.model.body(first).id, self.model.body(second).id}
        bodies = self.model.geom_bodyid
        return any({bodies[a], bodies[b]} == pair for a, b in self.data.contact.geom)

    def finger_contacts(self, body: str) -> int:
        """How many fingers touch a body."""
        body_id = self.model.body(body).id
        bodies = self.model.geom_bodyid
        touched: set[int] = set()
        for a, b in self.data.contact.geom:
            if a in self._fingers and bodies[b] == body_id:
                touched.add(int(a))
            if b in self._fingers and bodies[a] == body_id:
                touched.add(int(b))
        return len(touched)

    def gripper_opening(self) -> float:
        """0 closed .. 1 open, mean over the fingers, as the fraction between their two targets."""
        closed, opened = self.robot.finger_targets
        return float(np.mean(self.data.qpos[self._finger_qpos]) - closed) / (opened - closed)

    def place(self, body: str, pose: PlanarPose, height: float) -> None:
        """Put a free body's frame at a planar pose and height [m], at rest."""
        joint = self.model.joint(self.model.body(body).jntadr[0])
        self.data.qpos[joint.qposadr[0] :][:7] = [pose.x, pose.y, height, *quaternion_from_yaw(pose.yaw)]
        self.data.qvel[joint.dofadr[0] :][:6] = 0.0

    def place_robot(self) -> None:
        """Put the arm at its initial joint positions with the gripper open, at rest, and hold it there."""
        for servo, value in zip(self.robot.arm, self.robot.initial_arm, strict=True):
            self.data.joint(servo.joint).qpos[0] = value
        for servo in self.robot.gripper:
            joint = self.data.joint(servo.joint)
            joint.qpos[0] = self.model.joint(servo.joint).range[1]
        mujoco.mj_forward(self.model, self.data)
        self.controller.reset(self.data)

    def advance(self, steps: int) -> None:
        """Run the physics."""
        mujoco.mj_step(self.model, self.data, nstep=steps)
