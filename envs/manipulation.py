"""The one gymnasium environment: a robot, a task, a camera, and actions that a policy could send."""

import math
from collections.abc import Callable
from typing import Any

import gymnasium
import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.building import build
from envs.errors import EnvError
from envs.geometry import roll_pitch_yaw
from envs.projection import image_places
from envs.rendering import CameraRenderer
from envs.spaces import action_space, observation_space
from envs.staging import MIXED, Staging
from envs.task import Goal, Judge, Start, Success, Task
from envs.variant import VISUAL_MATCHING
from envs.world import World

_SETTLE_TIME = 0.5  # [s] for objects to come to rest before the first observation
_LONGER_SETTLE_TIME = 1.5  # [s] more if something still moves, as SIMPLER


class ManipulationEnv(gymnasium.Env[dict[str, Any], NDArray[np.float32]]):
    """One task with one arm.

    Observations: `images` {camera: (height, width, 3) uint8} and `state` (7,) float32: TCP x y z [m] and roll pitch
    yaw [rad] in the robot's base frame (angles from the top-down pose), gripper opening 0..1.
    Actions: (7,) float32: dx dy dz [m] and a rotation vector [rad] in the base frame, gripper +1 open .. -1 closed.
    Reward: 1 while the official success condition holds. Episodes never terminate; they are truncated at `max_steps`,
    because SIMPLER scores success at the last step.

    Args:
        task: what to do.
        staging: which version of its world.
        image_size: (height, width) of camera images; any shape shows the camera's whole field of view.
        render: False leaves images out of observations, for experts and physics tests.

    Attributes:
        world: the simulation; another one after a reset that needs other objects.
        start: how this episode began.
        goal: what is asked for in this episode.
        judge: watches this episode.
        success: what the judge saw last.
        draws: whether observations have images; it may be set to False for a while.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}  # noqa: RUF012 - gymnasium's own class attribute

    state_names = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
    state_units = ("m", "m", "m", "rad", "rad", "rad", "1")
    action_names = ("dx", "dy", "dz", "rotation_x", "rotation_y", "rotation_z", "gripper")
    action_units = ("m", "m", "m", "rad", "rad", "rad", "1")
    keypoint_names = (
        *(f"{thing}_{axis}" for thing in ("source", "target", "tcp") for axis in "xyz"),
        *("sin_2_grasp_yaw", "cos_2_grasp_yaw"),
        *(f"{thing}_{axis}" for thing in ("source", "target", "tcp") for axis in "uv"),
    )

    def __init__(
        self, task: Task, staging: Staging, image_size: tuple[int, int] = (224, 224), render: bool = True
    ) -> None:
        if min(image_size) < 1:
            raise EnvError(f"image_size is (height, width) in pixels, each at least 1; got {image_size}")
        self.task = task.in_setting(staging.setting)
        self.robot = task.robot
        self.staging = staging
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": round(1 / task.robot.control_period)}
        self.render_mode = "rgb_array" if render else None
        self._image_size = image_size
        self._renderer: CameraRenderer | None = None
        self.draws = render
        self.start = self.task.official_start(0)
        self.goal: Goal = self.start.goals[0]
        self.judge: Judge
        self.success: Success
        self._load(self.start)
        self._episode_id: int | None = None
        self._physics_steps, self._clipped, self._solved_once, self._gripper = 0, False, False, 1.0
        self.observation_space = observation_space({self.camera_name: image_size} if render else {})
        self.action_space = action_space()

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
    def simulated_time(self) -> float:
        """[s] since the episode began."""
        return self._physics_steps * self.robot.physics_step

    @property
    def renderer_name(self) -> str:
        """What draws the images, for example `llvmpipe`; images are equal only between equal renderers."""
        return self._renderer.name if self._renderer else "none"

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode.

        Args:
            seed: of a fresh start.
            options: `episode_id`: official start to take instead; `change_start`: function from that `Start` to the one
                to take; `goal`: which of `info["instructions"]` to ask for, 0 (the task's own) unless given, or `any`:
                drawn from the seed.

        Raises:
            EnvError: on an episode id outside the official grid, a goal the start does not have, or an unknown option.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        unknown = set(options) - {"episode_id", "change_start", "goal"}
        if unknown:
            raise EnvError(f"unknown reset option(s) {sorted(unknown)}; allowed: episode_id, change_start, goal")
        self._episode_id = self._checked_episode_id(options.get("episode_id"))
        self.start = self._choose_start(options.get("change_start", lambda start: start))
        self.goal = self._checked_goal(options.get("goal", 0))
        self._prepare()
        self.judge = self.goal.judge(self.world)
        self._physics_steps, self._clipped, self._solved_once, self._gripper = 0, False, False, 1.0
        self.success = self.judge.update()
        return self._observation(), self._info()

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
        return self._advance(self.robot.substeps)

    def wait(self, seconds: float) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Hold for up to a control period, rounded up to physics steps, as when waiting for an answer; as `step`.

        Success is judged once per control period of simulated time, and the time limit counts waiting too.

        Raises:
            EnvError: if it is longer, or no time at all.
        """
        if not 0 < seconds <= self.control_period * (1 + 1e-9):
            raise EnvError(f"wait more than 0 s and at most a control period, {self.control_period} s; got {seconds}")
        steps = min(math.ceil(seconds / self.robot.physics_step - 1e-6), self.robot.substeps)
        self._clipped = self.world.controller.command(self.world.data, self.hold_action.astype(np.float64))
        return self._advance(max(1, steps))

    def render(self) -> NDArray[np.uint8]:  # type: ignore[override]
        """(height, width, 3) what the policy's camera sees now.

        Raises:
            EnvError: if the environment was made with `render=False`.
        """
        return self._drawer().image(self.world.data, self.robot.camera)

    def segmentation(self) -> NDArray[np.int32]:
        """(height, width) id of the body that the policy's camera sees now: 0 is fixed scenery, -1 nothing.

        Raises:
            EnvError: if the environment was made with `render=False`.
        """
        return self._drawer().segmentation(self.world.data, self.robot.camera)

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()

    def keypoints(self) -> NDArray[np.float32]:
        """(17,) labels: source, target and TCP [m] in the base frame, the grasp direction, their `image_places`."""
        world, points = self.world, self.judge.keypoints()
        yaw = 2 * (points.grasp_yaw - roll_pitch_yaw(world.base_rotation)[2])
        things = [points.source, points.target, world.in_world(world.controller.tool_pose(world.data)[0])]
        seen = image_places(world.model, world.data, self.robot.camera, np.stack(things))
        return np.concatenate([*map(world.in_base, things), [np.sin(yaw), np.cos(yaw)], seen.ravel()], dtype=np.float32)

    @property
    def _elapsed(self) -> int:
        """Whole control periods of this episode."""
        return self._physics_steps // self.robot.substeps

    def _advance(self, steps: int) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Run the physics after a command, and look at the world if a control period has become full."""
        self.world.controller.advance(self.world.data, steps)
        before, self._physics_steps = self._elapsed, self._physics_steps + steps
        if self._elapsed > before:
            self.success = self.judge.update()
            self._solved_once |= self.success.official
        truncated = self._elapsed >= self.task.max_steps
        return self._observation(), float(self.success.official), False, truncated, self._info()

    def _drawer(self) -> CameraRenderer:
        if self._renderer is None:
            raise EnvError("this environment was made with render=False; make it with render=True to see images")
        return self._renderer

    def _checked_episode_id(self, episode_id: object) -> int | None:
        if episode_id is None:
            return None
        if self.staging.scene == MIXED:
            raise EnvError("mixed scenes have no official starts; leave episode_id out and give a seed")
        if not isinstance(episode_id, (int, np.integer)) or not 0 <= episode_id < self.grid_size:
            raise EnvError(
                f"episode_id {episode_id} is outside the {self.grid_size} official starts of {self.task.name}"
            )
        return int(episode_id)

    def _checked_goal(self, number: object) -> Goal:
        goals = self.start.goals
        if number == "any":
            return goals[self.np_random.integers(len(goals))]
        if not isinstance(number, (int, np.integer)) or not 0 <= number < len(goals):
            allowed = ", ".join(f"{index}: {goal.instruction}" for index, goal in enumerate(goals))
            raise EnvError(f"goal {number!r} is not one of this scene's: {allowed}")
        return goals[int(number)]

    def _choose_start(self, change: Callable[[Start], Start]) -> Start:
        if self._episode_id is not None:
            start, rng = self.task.official_start(self._episode_id), np.random.default_rng(self._episode_id)
        else:
            rng = self.np_random
            start = self.task.mixed_start(rng) if self.staging.scene == MIXED else self.task.random_start(rng)
        return self.staging.perturbation.change_start(self.task, change(start), rng)

    def _prepare(self) -> None:
        """Put everything where the start says and let it come to rest."""
        if set(self.start.objects) != set(self.world.objects):
            self._load(self.start)
        world = self.world
        mujoco.mj_resetData(world.model, world.data)
        for name, pose in self.start.objects.items():
            world.place(name, pose, self.task.scene.surface)
        for name, position in self.start.joints.items():
            world.set_joint(name, position)
        world.place_robot(self.start.base)
        world.advance(round(_SETTLE_TIME / self.robot.physics_step))
        if world.is_moving():
            world.advance(round(_LONGER_SETTLE_TIME / self.robot.physics_step))
        for name, speed in self.start.speeds.items():
            world.drive(name, speed)

    def _load(self, start: Start) -> None:
        """Build the world that holds the objects of a start."""
        model = build(self.task, start, self.staging, self._image_size)
        self.world = World(self.robot, self.task.mount, model, start.objects)
        if self._renderer is not None:
            self._renderer.load(model)
        elif self.render_mode is not None:
            matched = self.staging.setting == VISUAL_MATCHING
            self._renderer = CameraRenderer(model, self._image_size, matched, self.staging.overlay)

    def _observation(self) -> dict[str, Any]:
        return {"images": {self.camera_name: self.render()} if self.draws else {}, "state": self._state()}

    def _state(self) -> NDArray[np.float32]:
        position, rotation = self.world.controller.tool_pose(self.world.data)
        angles = roll_pitch_yaw(rotation @ np.array(self.robot.top_down).T)
        return np.concatenate([position, angles, [self.world.gripper_opening()]]).astype(np.float32)

    def _info(self) -> dict[str, Any]:
        return {
            "instruction": self.judge.instruction,
            "instructions": [goal.instruction for goal in self.start.goals],
            "is_final_subtask": self.judge.is_final_subtask,
            "setting": self.staging.setting,
            "variant": self.staging.variant,
            "scene": self.staging.scene,
            "episode_id": self._episode_id,
            "elapsed_steps": self._elapsed,
            "success": self.success.official,
            "success_any": self._solved_once,
            "success_strict": self.success.strict,
            "clipped": self._clipped,
            "episode_stats": dict(self.success.stats),
        }
