"""The one gymnasium environment: a robot, a task, a camera, and actions that a policy could send."""

from typing import Any

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.errors import EnvError
from envs.geometry import roll_pitch_yaw
from envs.rendering import CameraRenderer
from envs.task import Success, Task
from envs.world import World

_SETTLE_TIME = 0.5  # [s] for objects to come to rest before the first observation


class ManipulationEnv(gymnasium.Env[dict[str, Any], NDArray[np.float32]]):
    """One task with one arm.

    Observations: `images` {camera: (height, width, 3) uint8} and `state` (7,) float32: TCP x y z [m] and roll pitch
    yaw [rad] in the robot's base frame (angles from the top-down pose), gripper opening 0..1.
    Actions: (7,) float32: dx dy dz [m] and a rotation vector [rad] in the base frame, gripper +1 open .. -1 closed.
    Reward: 1 while the official success condition holds. Episodes never terminate; they are truncated at `max_steps`,
    because SIMPLER scores success at the last step.

    Args:
        task: what to do.
        image_size: (height, width) of camera images; any shape shows the camera's whole field of view.
        render: False leaves images out of observations, for experts and physics tests.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012 - gymnasium's own class attribute

    state_names = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
    state_units = ("m", "m", "m", "rad", "rad", "rad", "1")
    action_names = ("dx", "dy", "dz", "rotation_x", "rotation_y", "rotation_z", "gripper")
    action_units = ("m", "m", "m", "rad", "rad", "rad", "1")
    keypoint_names = (
        *(f"{thing}_{axis}" for thing in ("source", "target", "tcp") for axis in "xyz"),
        "sin_2_grasp_yaw",
        "cos_2_grasp_yaw",
    )

    def __init__(self, task: Task, image_size: tuple[int, int] = (224, 224), render: bool = True) -> None:
        if min(image_size) < 1:
            raise EnvError(f"image_size is (height, width) in pixels, each at least 1; got {image_size}")
        self.task = task
        self.robot = task.robot
        self.render_mode = "rgb_array" if render else None
        self.world = World(task.robot, _compile(task, image_size))
        self._renderer = CameraRenderer(self.world.model, image_size) if render else None
        self._elapsed = 0
        self._clipped = False
        self._episode_id: int | None = None
        self._gripper = 1.0
        self.observation_space = self._observation_space(image_size)
        high = np.array([1.0, 1.0, 1.0, np.pi / 2, np.pi / 2, np.pi / 2, 1.0], np.float32)
        self.action_space = gymnasium.spaces.Box(-high, high)

    @property
    def control_period(self) -> float:
        """[s] between actions."""
        return self.robot.control_period

    @property
    def max_episode_steps(self) -> int:
        return self.task.max_steps

    @property
    def grid_size(self) -> int:
        """Number of official initial states."""
        return self.task.grid_size

    @property
    def camera_name(self) -> str:
        return self.robot.camera

    @property
    def hold_action(self) -> NDArray[np.float32]:
        """(7,) the action that changes nothing: no motion, the gripper as last commanded."""
        return np.array([0, 0, 0, 0, 0, 0, self._gripper], np.float32)

    @property
    def renderer_name(self) -> str:
        """What draws the images, for example `llvmpipe`; images are equal only between equal renderers."""
        return self._renderer.name if self._renderer else "none"

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode: `options={"episode_id": k}` for official start k, otherwise a fresh start from the seed.

        Raises:
            EnvError: on an episode id outside the official grid, or an unknown option.
        """
        super().reset(seed=seed)
        self._episode_id = self._checked_episode_id(options or {})
        start = (
            self.task.random_start(self.np_random)
            if self._episode_id is None
            else self.task.official_start(self._episode_id)
        )
        mujoco.mj_resetData(self.world.model, self.world.data)
        self.task.place(self.world, start)
        self.world.place_robot()
        self.world.advance(round(_SETTLE_TIME / self.robot.physics_step))
        self._elapsed, self._clipped, self._gripper = 0, False, 1.0
        return self._observation(), self._info(self.task.success(self.world))

    def step(self, action: NDArray[np.float32]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Run one control period.

        Raises:
            EnvError: if the action is not 7 finite numbers.
        """
        command = np.asarray(action, dtype=np.float64)
        if command.shape != (7,) or not np.isfinite(command).all():
            raise EnvError(f"an action is 7 finite numbers {self.action_names}, got shape {command.shape}: {action}")
        self._clipped = self.world.controller.command(self.world.data, command)
        self._gripper = float(np.clip(command[6], -1, 1))
        self.world.advance(self.robot.substeps)
        self._elapsed += 1
        success = self.task.success(self.world)
        truncated = self._elapsed >= self.task.max_steps
        return self._observation(), float(success.official), False, truncated, self._info(success)

    def render(self) -> NDArray[np.uint8]:  # type: ignore[override]
        """(height, width, 3) what the policy's camera sees now.

        Raises:
            EnvError: if the environment was made with `render=False`.
        """
        if self._renderer is None:
            raise EnvError("this environment was made with render=False; make it with render=True to see images")
        return self._renderer.image(self.world.data, self.robot.camera)

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()

    def keypoints(self) -> NDArray[np.float32]:
        """(11,) where source, target and TCP are [m], in the base frame, and the grasp direction: training labels."""
        world = self.world
        tcp, _ = world.controller.tool_pose(world.data)
        yaw = 2 * world.yaw_in_base(self.task.source.name)
        places = [world.in_base(world.position(model.name)) for model in (self.task.source, self.task.target)]
        return np.concatenate([*places, tcp, [np.sin(yaw), np.cos(yaw)]]).astype(np.float32)

    def _checked_episode_id(self, options: dict[str, Any]) -> int | None:
        unknown = set(options) - {"episode_id"}
        if unknown:
            raise EnvError(f"unknown reset option(s) {sorted(unknown)}; allowed: episode_id")
        episode_id = options.get("episode_id")
        if episode_id is not None and not 0 <= episode_id < self.grid_size:
            raise EnvError(
                f"episode_id {episode_id} is outside the {self.grid_size} official starts of {self.task.name}"
            )
        return episode_id

    def _observation_space(self, image_size: tuple[int, int]) -> gymnasium.spaces.Dict:
        image = gymnasium.spaces.Box(0, 255, (*image_size, 3), np.uint8)
        images = gymnasium.spaces.Dict({self.camera_name: image} if self._renderer else {})
        furthest = np.array([2.0, 2.0, 2.0, np.pi, np.pi, np.pi, 1.2], np.float32)  # beyond any reachable state
        state = gymnasium.spaces.Box(-furthest, furthest)
        return gymnasium.spaces.Dict({"images": images, "state": state})

    def _observation(self) -> dict[str, Any]:
        images = {self.camera_name: self.render()} if self._renderer else {}
        return {"images": images, "state": self._state()}

    def _state(self) -> NDArray[np.float32]:
        position, rotation = self.world.controller.tool_pose(self.world.data)
        angles = roll_pitch_yaw(rotation @ np.array(self.robot.top_down).T)
        return np.concatenate([position, angles, [self.world.gripper_opening()]]).astype(np.float32)

    def _info(self, success: Success) -> dict[str, Any]:
        return {
            "instruction": self.task.instruction,
            "episode_id": self._episode_id,
            "elapsed_steps": self._elapsed,
            "success": success.official,
            "success_strict": success.strict,
            "clipped": self._clipped,
            "episode_stats": dict(success.stats),
        }


def _compile(task: Task, image_size: tuple[int, int]) -> mujoco.MjModel:
    scene = task.robot.scene()
    scene.option.timestep = task.robot.physics_step
    scene.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    scene.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    scene.option.impratio = 10.0
    scene.visual.global_.offheight, scene.visual.global_.offwidth = image_size
    task.add_to(scene)
    return scene.compile()
