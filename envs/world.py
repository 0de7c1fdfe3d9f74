"""What tasks and experts may ask the running simulation: where things are, what touches what, how fast it moves."""

from collections.abc import Iterable

import mujoco
import numpy as np

from envs.control import EndEffectorController
from envs.geometry import Matrix, PlanarPose, Vector, quaternion_from_yaw, roll_pitch_yaw
from envs.robot import Mount, Robot

_FORCE = 1e-6  # [N] below which a contact does not count
_CLEARANCE = 0.001  # [m] between an object and what it is placed on
_OBJECT_DAMPING = 0.1  # [1/s] linear and angular, as SIMPLER damps its objects


class World:
    """One compiled scene and its state, read in the vocabulary of the tasks.

    Args:
        robot: the arm in the scene.
        mount: how it is set up.
        model: the compiled scene.
        objects: names of the free bodies.
    """

    def __init__(self, robot: Robot, mount: Mount, model: mujoco.MjModel, objects: Iterable[str] = ()) -> None:
        self.robot = robot
        self.mount = mount
        self.model = model
        self.data = mujoco.MjData(model)
        self.objects = tuple(objects)
        self.controller = EndEffectorController(robot, model)
        self._base = model.body("base_link").id
        self._finger_bodies = [{model.body(name).id for name in finger} for finger in robot.fingers]
        self._finger_qpos = [model.joint(servo.joint).qposadr[0] for servo in robot.gripper]
        self._is_robot = model.body_rootid == self._base
        for name in self.objects:
            self._damp(name)

    def position(self, body: str) -> Vector:
        """(3,) centre of mass of a body in the world [m]."""
        return self.data.xipos[self.model.body(body).id].copy()

    def origin(self, body: str) -> Vector:
        """(3,) frame origin of a body in the world [m]."""
        return self.data.xpos[self.model.body(body).id].copy()

    def rotation(self, body: str) -> Matrix:
        """(3, 3) rotation of a body in the world."""
        return self.data.xmat[self.model.body(body).id].reshape(3, 3).copy()

    def site(self, name: str) -> Vector:
        """(3,) position of a site in the world [m]."""
        return self.data.site(name).xpos.copy()

    def in_base(self, position: Vector) -> Vector:
        """A world position (3,) [m] in the robot's base frame."""
        return self.base_rotation.T @ (position - self.data.xpos[self._base])

    def in_world(self, position: Vector) -> Vector:
        """The inverse of `in_base`."""
        return self.data.xpos[self._base] + self.base_rotation @ position

    @property
    def base_rotation(self) -> Matrix:
        """(3, 3) rotation of the robot's base frame in the world."""
        return self.data.xmat[self._base].reshape(3, 3).copy()

    def yaw_in_base(self, body: str) -> float:
        """[rad] of a body's x axis about the vertical, in the robot's base frame."""
        return float(roll_pitch_yaw(self.base_rotation.T @ self.rotation(body))[2])

    def speed(self, body: str) -> tuple[float, float]:
        """Linear [m/s] and angular [rad/s] speed of a body."""
        velocity = np.empty(6)
        body_id = self.model.body(body).id
        mujoco.mj_objectVelocity(self.model, self.data, mujoco.mjtObj.mjOBJ_BODY, body_id, velocity, 0)
        return float(np.linalg.norm(velocity[3:])), float(np.linalg.norm(velocity[:3]))

    def contact_force(self, body: str, other: str | set[int]) -> Vector:
        """(3,) [N] with which other bodies (a name or ids) push a body, in the world frame."""
        body_id = self.model.body(body).id
        others = {self.model.body(other).id} if isinstance(other, str) else other
        total = np.zeros(3)
        for index, force in self._contacts(body_id):
            if index in others:
                total += force
        return total

    def touching(self, body: str, other: str) -> bool:
        """Whether two bodies push each other."""
        other_id = self.model.body(other).id
        return any(index == other_id and np.linalg.norm(force) > _FORCE for index, force in self._by_other(body))

    def touched_bodies(self, body: str) -> set[str]:
        """Names of what pushes a body, the robot's links left out."""
        return {
            self.model.body(index).name
            for index, force in self._by_other(body)
            if not self._is_robot[index] and np.linalg.norm(force) > _FORCE
        }

    def touched_by_robot(self, body: str) -> bool:
        """Whether any link of the robot pushes a body."""
        return any(self._is_robot[index] and np.linalg.norm(force) > _FORCE for index, force in self._by_other(body))

    def finger_contacts(self, body: str) -> int:
        """How many fingers touch a body: 0, 1 or 2."""
        touched = {index for index, _ in self._by_other(body)}
        return sum(bool(finger & touched) for finger in self._finger_bodies)

    def grasped(self, body: str, max_angle: float) -> bool:
        """SIMPLER's grasp test: both fingers push the body, each within `max_angle` [rad] of its closing direction."""
        centres = [np.mean([self.data.xipos[index] for index in finger], axis=0) for finger in self._finger_bodies]
        closing = centres[1] - centres[0]
        for finger, direction in zip(self._finger_bodies, (closing, -closing), strict=True):
            force = self.contact_force(body, finger)
            length = float(np.linalg.norm(force) * np.linalg.norm(direction))
            if np.linalg.norm(force) < _FORCE or force @ direction < length * np.cos(max_angle):
                return False
        return True

    def gripper_opening(self) -> float:
        """0 closed .. 1 open, mean over the fingers, as the fraction between their two targets."""
        closed, opened = self.robot.finger_targets
        return float(np.mean(self.data.qpos[self._finger_qpos]) - closed) / (opened - closed)

    def joint(self, name: str) -> float:
        """Position of a hinge or slide joint [rad or m]."""
        return float(self.data.joint(name).qpos[0])

    def joint_speed(self, name: str) -> float:
        """Speed of a hinge or slide joint [rad/s or m/s]."""
        return float(self.data.joint(name).qvel[0])

    def set_joint(self, name: str, position: float) -> None:
        """Put a hinge or slide joint at a position [rad or m], at rest."""
        joint = self.data.joint(name)
        joint.qpos[0], joint.qvel[0] = position, 0.0

    def drive(self, motor: str, speed: float) -> None:
        """Run a motor at a speed [m/s] from now on."""
        self.data.actuator(motor).ctrl[0] = speed

    def place(self, body: str, pose: PlanarPose, surface: float) -> None:
        """Put a free body at rest with its lowest point just above a surface of this height [m]."""
        joint = self.data.joint(body)
        joint.qpos[:] = [pose.x, pose.y, 0.0, *pose.quaternion]
        joint.qvel[:] = 0.0
        mujoco.mj_kinematics(self.model, self.data)
        joint.qpos[2] = surface + _CLEARANCE - self._lowest(self.model.body(body).id)

    def place_robot(self, base: PlanarPose | None = None) -> None:
        """Put the arm at its initial joint positions with the gripper open, at rest, and hold it there.

        Args:
            base: where it stands, None for the mount's own place.
        """
        stand = base or self.mount.base
        self.model.body_pos[self._base] = [stand.x, stand.y, self.mount.height]
        self.model.body_quat[self._base] = quaternion_from_yaw(stand.yaw)
        for servo, value in zip(self.robot.arm, self.mount.arm, strict=True):
            self.set_joint(servo.joint, value)
        for servo in self.robot.gripper:
            lowest, highest = self.model.joint(servo.joint).range
            self.set_joint(servo.joint, float(np.clip(self.robot.finger_targets[1], lowest, highest)))
        mujoco.mj_forward(self.model, self.data)
        self.controller.reset(self.data)

    def advance(self, steps: int) -> None:
        """Run the physics with the servos' targets as they are."""
        mujoco.mj_step(self.model, self.data, nstep=steps)

    def is_moving(self, linear: float = 1e-3, angular: float = 1e-2) -> bool:
        """Whether any object is faster than these speeds [m/s], [rad/s]."""
        speeds = (self.speed(name) for name in self.objects)
        return any(speed > linear or turning > angular for speed, turning in speeds)

    def _damp(self, name: str) -> None:
        body, first = self.model.body(name), self.model.joint(name).dofadr[0]
        self.model.dof_damping[first : first + 3] = _OBJECT_DAMPING * body.mass[0]
        self.model.dof_damping[first + 3 : first + 6] = _OBJECT_DAMPING * body.inertia

    def _lowest(self, body_id: int) -> float:
        """[m] height of the lowest corner of the boxes around a body's colliding geoms."""
        model, corners = self.model, []
        for geom in np.flatnonzero((model.geom_bodyid == body_id) & (model.geom_contype > 0)):
            centre, half = model.geom_aabb[geom, :3], model.geom_aabb[geom, 3:]
            vertical = self.data.geom_xmat[geom].reshape(3, 3)[2]
            corners.append(self.data.geom_xpos[geom, 2] + vertical @ centre - np.abs(vertical) @ half)
        return float(min(corners))

    def _by_other(self, body: str) -> list[tuple[int, Vector]]:
        """Total force (3,) [N] on a body from each body that touches it, by id."""
        totals: dict[int, Vector] = {}
        for index, force in self._contacts(self.model.body(body).id):
            totals[index] = totals.get(index, np.zeros(3)) + force
        return list(totals.items())

    def _contacts(self, body_id: int) -> list[tuple[int, Vector]]:
        """(other body's id, force (3,) [N] on this body) of every contact of a body."""
        found: list[tuple[int, Vector]] = []
        geoms = self.data.contact.geom
        bodies = self.model.geom_bodyid[geoms]
        wrench = np.empty(6)
        for number in np.flatnonzero((bodies == body_id).any(axis=1)):
            contact = self.data.contact[number]
            mujoco.mj_contactForce(self.model, self.data, number, wrench)
            force = contact.frame.reshape(3, 3).T @ wrench[:3]  # on the second geom's body
            first, second = bodies[number]
            found.append((int(first), force) if second == body_id else (int(second), -force))
        return found
