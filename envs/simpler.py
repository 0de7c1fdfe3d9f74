"""SimplerEnv's interface to these tasks: a script written for SimplerEnv runs with only its imports changed.

    import envs.simpler as simpler_env
    from envs.simpler import get_image_from_maniskill2_obs_dict

It takes SimplerEnv's options and actions and answers with ManiSkill2's observations and `info` keys (SimplerEnv 4ab7178
`simpler_env/`, ManiSkill2_real2sim ef7a4d4 `envs/` and `agents/`). What differs:

- Observations have no `depth`, no `camera_param` and no `base_camera`; `Segmentation` holds body ids.
- Objects have this package's names: `carrot`, not `bridge_carrot_generated_modified`.
- `episode_id` chooses an official start of any task. The arm's colour changes only with `urdf_version`, not at random.
- `robot_init_options` are obeyed; SimplerEnv's prepackaged environments silently replace them.
- An option without a counterpart is an error that names those that have one, never ignored.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from numpy.typing import NDArray

import envs
from envs import objects
from envs.errors import EnvError
from envs.geometry import Matrix, PlanarPose, Vector, quaternion_from_matrix
from envs.manipulation import ManipulationEnv
from envs.task import Goal, Start
from envs.tasks import find
from envs.variant import VARIANT_AGGREGATION

ENVIRONMENTS = list(envs.SIMPLER)

# What a prepackaged environment is like, and cannot be otherwise here.
_PLANNED = "arm_pd_ee_delta_pose_align_interpolate_by_planner_gripper_pd_joint_target_delta_pos_interpolate_by_planner"
_DIRECT = "arm_pd_ee_target_delta_pose_align2_gripper_pd_joint_pos"
_FIXED = {
    "google_robot": {"robot": "google_robot_static", "control_mode": _PLANNED, "control_freq": 3, "sim_freq": 513},
    "widowx": {"robot": "widowx", "control_mode": _DIRECT, "control_freq": 5, "sim_freq": 500},
}
_IMAGE_SIZES = {"google_robot": (512, 640), "widowx": (480, 640)}  # (height, width) [pixels]

# Options that change how it looks -> {value: variant here}.
_ARMS = ("tabletop_visual_matching_1", "tabletop_visual_matching_2", "cabinet_visual_matching_1")
VARIATIONS: dict[str, dict[Any, str]] = {
    "urdf_version": {f"recolor_{arm}": f"recolor_{arm}" for arm in _ARMS},
    "slightly_darker_lighting": {True: "lighting_darker"},
    "slightly_brighter_lighting": {True: "lighting_brighter"},
    "no_distractor": {True: "no_distractors"},
}
_UNVARIED = (None, False, "", "None")
_OURS = ("setting", "variant", "overlay", "robot_assets")

_PLACING, _OPENING, _STANDING = ("init_xy", "orientation"), ("cabinet_init_qpos",), ("init_xy", "init_rot_quat")
_ORIENTATIONS = {"lr_switch": "horizontal", "laid_vertically": "vertical", "standing": "upright"}
_LEVEL = 1e-3  # of a quaternion's x and y, below which it turns about the vertical

_SEED = 2022  # of an environment that nobody seeded
_FINGER_STEP, _NO_STEP = 1.31, 1e-3  # [rad] by which the action 1 moves the Google robot's fingers; what counts as 0


class Pose(NamedTuple):
    """Position p (3,) [m] and rotation q (4,) w x y z."""

    p: NDArray[np.float32]
    q: NDArray[np.float32]


def make(task_name: str, **options: Any) -> "SimplerEnv":
    """Build SimplerEnv's prepackaged environment of a task.

    Args:
        task_name: one of `ENVIRONMENTS`.
        options: `rgb_overlay_path` (the photograph for visual matching; None shows the whole simulated scene, as
            variant aggregation does), `max_episode_steps`, one of SimplerEnv's variations (`urdf_version`,
            `slightly_darker_lighting`, …), or `setting`, `variant`, `overlay`, `robot_assets` as in `envs.make`. What
            describes the fixed set-up (`robot`, `control_mode`, `control_freq`, …) is accepted if it is right.

    Raises:
        EnvError: for an unknown name or an option that has no counterpart here, naming those that have.
    """
    task = find(task_name)
    fixed = {**_FIXED[task.robot.name], "obs_mode": "rgbd", "prepackaged_config": True}
    if task_name == "widowx_put_eggplant_in_basket":
        fixed["robot"] = "widowx_sink_camera_setup"
    ours = {key: options.pop(key) for key in _OURS if key in options}
    if "rgb_overlay_path" in options:
        photo = options.pop("rgb_overlay_path")
        ours |= {"setting": VARIANT_AGGREGATION} if photo is None else {"overlay": photo}
    for key in VARIATIONS.keys() & options:
        value = options.pop(key)
        if value not in _UNVARIED:
            if value not in VARIATIONS[key] or "variant" in ours:
                raise EnvError(f"{key}={value!r} is not one of {list(VARIATIONS[key])}, or not the only variation")
            ours["variant"] = VARIATIONS[key][value]
    max_steps = options.pop("max_episode_steps", task.max_steps)
    if wrong := {key: value for key, value in options.items() if key not in fixed or fixed[key] != value}:
        allowed = ", ".join(("rgb_overlay_path", "max_episode_steps", *VARIATIONS, *_OURS))
        raise EnvError(f"cannot make {task_name} with {wrong}; options: {allowed}; fixed: {fixed}")
    return SimplerEnv(envs.make(task_name, image_size=_IMAGE_SIZES[task.robot.name], **ours), fixed, max_steps)


def get_image_from_maniskill2_obs_dict(env: Any, obs: dict[str, Any], camera_name: str | None = None) -> Any:
    """(height, width, 3) uint8 RGB of a camera, the policy's unless named."""
    return obs["image"][camera_name or env.unwrapped.camera_name]["rgb"]


class SimplerEnv(gymnasium.Wrapper[dict[str, Any], NDArray[np.float32], dict[str, Any], NDArray[np.float32]]):
    """A task as SimplerEnv presents it; `make` builds it. `unwrapped` is this, `task_env` the task's own environment.

    Observations: `agent` {qpos, qvel, controller, base_pose, eef_pos}, `extra` {tcp_pose} and `image` {camera: {rgb
    (H, W, 3) uint8, Segmentation (H, W, 4) uint32}}. Poses are (7,): position [m], then w x y z, in the world; forks of
    SimplerEnv have `eef_pos` (8,): the tool in the base frame, and the gripper's opening 0..1.
    Actions: (7,) dx dy dz [m], rotation vector [rad], gripper. WidowX: +1 open .. -1 closed. Google robot: +1 closes
    and -1 opens, by up to 1.31 rad from where the fingers' path was left; 0 goes on to the last target.
    `terminated` is success now. SimplerEnv's evaluation goes on to the end and scores the last step.
    """

    def __init__(self, env: ManipulationEnv, fixed: Mapping[str, Any], max_steps: int) -> None:
        super().__init__(env)
        self.task_env = env
        self.robot_uid, self.control_mode = fixed["robot"], fixed["control_mode"]
        self.control_freq, self.sim_freq = fixed["control_freq"], fixed["sim_freq"]
        self.camera_name, self.max_episode_steps = env.camera_name, max_steps
        self.observation_space = _space(self.reset(seed=_SEED)[0])

    @property
    def unwrapped(self) -> "SimplerEnv":  # type: ignore[override]
        return self

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start an episode.

        Args:
            seed: of a fresh start. Without one, seeds follow from the last one given; so an environment that nobody
                seeded goes through the same episodes in every process.
            options: `obj_init_options` {episode_id, init_xy, orientation, cabinet_init_qpos}, `robot_init_options`
                {init_xy, init_rot_quat}; `reconfigure` has no effect: the world is rebuilt whenever it must be.

        Raises:
            EnvError: for an option that has no counterpart here or that this task cannot obey.
        """
        seed = int(self.np_random.integers(2**31)) if seed is None else seed
        given = _known(options, "obj_init_options", "robot_init_options", "reconfigure")
        placing = _known(given.get("obj_init_options"), "episode_id", *_PLACING, *_OPENING)
        standing = _known(given.get("robot_init_options"), *_STANDING)
        episode_id = placing.pop("episode_id", None)
        request = {
            "episode_id": episode_id,
            "change_start": lambda start: self._standing(_placed(start, placing), standing),
        }
        observation, info = self.task_env.reset(seed=seed, options=request)
        self.elapsed_steps, self._finger_target = 0, self.task_env.robot.finger_targets[1]
        return self._observation(observation), info["episode_stats"] | info | self._about_start()

    def step(self, action: NDArray[np.floating]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Run one control period; raises EnvError unless the action is 7 finite numbers."""
        command = np.array(action, np.float64)
        if self.task_env.robot.name == "google_robot" and command.shape == (7,):
            command[6] = self._opening(command[6])
        observation, reward, _, _, info = self.task_env.step(command.astype(np.float32))
        self.elapsed_steps += 1
        truncated = self.elapsed_steps >= self.max_episode_steps
        return self._observation(observation), reward, info["success"], truncated, info["episode_stats"] | info

    def get_language_instruction(self) -> str:
        return self.task_env.judge.instruction

    def is_final_subtask(self) -> bool:
        return self.task_env.judge.is_final_subtask

    def advance_to_next_subtask(self) -> None:
        """Go on to the next instruction; does nothing at the last."""
        self.task_env.judge.advance_subtask()

    def _opening(self, command: float) -> float:
        """Gripper opening +1 .. -1 that a relative command to the Google robot's fingers asks for."""
        closed, opened = self.task_env.robot.finger_targets
        step = float(np.clip(command, -1, 1)) * _FINGER_STEP
        if not abs(step) < _NO_STEP:
            left_at = float(self.task_env.world.controller.finger_waypoint.mean())
            self._finger_target = float(np.clip(left_at + step, opened, closed))
        return 2 * (self._finger_target - closed) / (opened - closed) - 1

    def _standing(self, start: Start, options: dict[str, Any]) -> Start:
        """The start with the robot where `robot_init_options` want it."""
        if not options:
            return start
        stand = start.base or self.task_env.task.mount.base
        x, y = options.get("init_xy", (stand.x, stand.y))
        w, *level, z = options.get("init_rot_quat", stand.quaternion)
        if np.abs(level).max() > _LEVEL:
            raise EnvError(f"the robot can only be turned about the vertical; got init_rot_quat {(w, *level, z)}")
        return replace(start, base=PlanarPose(float(x), float(y), 2 * math.atan2(z, w)))

    def _observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        bodies = np.maximum(self.task_env.segmentation(), 0).astype(np.uint32)
        segments = np.stack([bodies, bodies, 0 * bodies, 0 * bodies], axis=-1)  # of meshes, of actors, and unused
        image = {"rgb": observation["images"][self.camera_name], "Segmentation": segments}
        tool = self.task_env.world.data.site("tcp")
        extra = {"tcp_pose": _pose(tool.xpos, tool.xmat)}
        return {"agent": self._agent(), "extra": extra, "image": {self.camera_name: image}}

    def _agent(self) -> dict[str, Any]:
        world, robot, controller = self.task_env.world, self.task_env.robot, self.task_env.world.controller
        joints = [servo.joint for servo in (*robot.arm, *robot.gripper)]
        qpos, qvel = [world.joint(name) for name in joints], [world.joint_speed(name) for name in joints]
        closed, opened = np.clip(robot.finger_targets, *world.model.joint(joints[-1]).range)
        opening = np.clip((np.mean(qpos[-2:]) - closed) / (opened - closed), 0, 1)
        state = {"arm": {"target_pose": _pose(controller.target_position, controller.target_rotation)}}
        if robot.name == "google_robot":  # its head stands still; where the camera on it looks tells its two joints
            forward = -world.base_rotation.T @ world.data.camera(self.camera_name).xmat.reshape(3, 3)[:, 2]
            qpos, qvel = [*qpos, math.atan2(forward[1], forward[0]), -math.asin(forward[2])], [*qvel, 0.0, 0.0]
            state = {"gripper": {"target_qpos": np.full(2, self._finger_target, np.float32)}}
        base = world.data.body("base_link")
        return {
            "qpos": np.array(qpos, np.float32),
            "qvel": np.array(qvel, np.float32),
            "controller": state,
            "base_pose": _pose(base.xpos, base.xmat),
            "eef_pos": np.array([*_pose(*controller.tool_pose(world.data)), opening], np.float32),
        }

    def _about_start(self) -> dict[str, Any]:
        """The `info` that only a reset gives."""
        task, staging = self.task_env.task, self.task_env.staging
        source, target, drawer = (_name(self.task_env.goal, role) for role in ("source", "target", "drawer"))
        about: dict[str, Any] = {"scene_name": task.scene.name, "scene_table_height": task.scene.surface}
        about["urdf_version"] = staging.variant if staging.variant in VARIATIONS["urdf_version"] else ""
        about["rgb_overlay_path"] = staging.overlay and str(staging.overlay)
        if source:
            about |= {"model_id": source, "obj_init_pose_wrt_robot_base": self._in_base(source)}
        for role, name in (("source", source), ("target", target)):
            if name:
                about[f"episode_{role}_obj_name"] = name
                about[f"episode_{role}_obj_init_pose_wrt_robot_base"] = self._in_base(name)
        if drawer:
            about["drawer_pose_wrt_robot_base"] = self._in_base(f"{drawer}_drawer")
            about["cabinet_pose_wrt_robot_base"] = self._in_base("cabinet")
        return about

    def _in_base(self, body: str) -> Pose:
        world = self.task_env.world
        pose = _pose(world.in_base(world.origin(body)), world.base_rotation.T @ world.rotation(body))
        return Pose(pose[:3], pose[3:])


def _known(options: Mapping[str, Any] | None, *allowed: str) -> dict[str, Any]:
    """What is given of the options that are allowed."""
    if unknown := set(options or {}) - set(allowed):
        raise EnvError(f"reset cannot obey {sorted(unknown)} here; allowed: {', '.join(allowed)}")
    return {key: value for key, value in (options or {}).items() if value is not None}


def _name(goal: Goal, role: str) -> str | None:
    """Of the object, place or drawer that has a role in a goal."""
    thing = getattr(goal, role, None)
    return getattr(thing, "name", thing)


def _placed(start: Start, options: dict[str, Any]) -> Start:
    """The start with its object and its drawers as `obj_init_options` want them."""
    source, drawer = (_name(start.goals[0], role) for role in ("source", "drawer"))
    _known(options, *(_PLACING if source else ()), *(_OPENING if drawer else ()))
    if source and options.keys() & set(_PLACING):
        pose, ways = start.objects[source], dict(objects.find(source).lying)
        x, y = map(float, options.get("init_xy", (pose.x, pose.y)))
        ways |= {theirs: ways[ours] for theirs, ours in _ORIENTATIONS.items() if ours in ways}
        pose = replace(pose, x=x, y=y)
        if "orientation" in options:
            if options["orientation"] not in ways:
                raise EnvError(f"orientation must be one of {', '.join(ways)}; got {options['orientation']!r}")
            pose = PlanarPose(x, y, lying=ways[options["orientation"]])
        start = replace(start, objects={**start.objects, source: pose})
    if "cabinet_init_qpos" in options:
        positions = np.atleast_1d(options["cabinet_init_qpos"])
        drawers = (drawer,) if len(positions) == 1 else ("top", "middle", "bottom")
        names = (f"{name}_drawer_joint" for name in drawers)
        start = replace(start, joints=dict(zip(names, map(float, positions), strict=True)))
    return start


def _pose(position: Vector, rotation: Matrix) -> NDArray[np.float32]:
    """(7,) position and quaternion w x y z."""
    return np.array([*position, *quaternion_from_matrix(rotation)], np.float32)


def _space(value: Any) -> gymnasium.Space[Any]:
    """The space of an observation like this one."""
    if isinstance(value, dict):
        return gymnasium.spaces.Dict({key: _space(part) for key, part in value.items()})
    limits = np.iinfo(value.dtype) if value.dtype.kind == "u" else np.finfo(value.dtype)
    return gymnasium.spaces.Box(limits.min, limits.max, value.shape, value.dtype.type)
