"""A script written for SimplerEnv; only its two imports are changed.

python examples/simpler_script.py --task google_robot_pick_coke_can --policy expert --episodes 3
"""

import argparse

import numpy as np
from numpy.typing import NDArray

import envs.simpler as simpler_env  # was: import simpler_env
from envs import experts
from envs.simpler import (
    get_image_from_maniskill2_obs_dict,
)  # was: from simpler_env.utils.env.observation_utils import …


class RandomPolicy:
    """Small random motions; put your model here."""

    def __init__(self, env: simpler_env.SimplerEnv) -> None:
        self._rng = np.random.default_rng(0)

    def reset(self, instruction: str) -> None:
        """A model would take the instruction in."""

    def step(self, image: NDArray[np.uint8], instruction: str) -> dict[str, NDArray[np.floating]]:
        motion = self._rng.uniform(-0.02, 0.02, 6)
        gripper = self._rng.choice([-1.0, 1.0], 1)
        return answer(np.concatenate([motion, gripper]), terminate=False)


class ExpertPolicy:
    """The scripted expert: it looks at the simulation instead of the image, and acts as a policy would."""

    def __init__(self, env: simpler_env.SimplerEnv) -> None:
        self._env = env.task_env
        self._expert = experts.make(self._env)

    def reset(self, instruction: str) -> None:
        self._expert.reset()

    def step(self, image: NDArray[np.uint8], instruction: str) -> dict[str, NDArray[np.floating]]:
        action = self._expert.action()
        if self._env.robot.name == "google_robot":
            action[6] = -action[6]  # SimplerEnv: +1 closes this robot's gripper
        return answer(action, terminate=self._expert.done)


POLICIES = {"random": RandomPolicy, "expert": ExpertPolicy}


def answer(action: NDArray[np.floating], terminate: bool) -> dict[str, NDArray[np.floating]]:
    """An action as SimplerEnv's policies give it."""
    parts = {"world_vector": action[:3], "rot_axangle": action[3:6], "gripper": action[6:]}
    return {**parts, "terminate_episode": np.array([float(terminate)])}


def run_episode(env: simpler_env.SimplerEnv, policy: RandomPolicy | ExpertPolicy, episode_id: int) -> bool:
    """Whether it was a success at the last step, which is what SimplerEnv counts."""
    obs, reset_info = env.reset(options={"obj_init_options": {"episode_id": episode_id}})
    instruction = env.get_language_instruction()
    policy.reset(instruction)
    image = get_image_from_maniskill2_obs_dict(env, obs)
    print(f"episode {reset_info['episode_id']}: {instruction}; image {image.shape}, TCP {obs['extra']['tcp_pose'][:3]}")
    success = truncated = terminated = False
    info = reset_info
    while not (terminated or truncated):
        action = policy.step(image, instruction)
        terminated = bool(action["terminate_episode"][0] > 0)
        if terminated and not env.is_final_subtask():
            terminated = False
            env.advance_to_next_subtask()
        command = np.concatenate([action["world_vector"], action["rot_axangle"], action["gripper"]])
        obs, _, success, truncated, info = env.step(command)
        if env.get_language_instruction() != instruction:
            instruction = env.get_language_instruction()
            print(f"  step {info['elapsed_steps']}: {instruction}")
        image = get_image_from_maniskill2_obs_dict(env, obs)
    print(f"  success {success} after {info['elapsed_steps']} steps, {info['episode_stats']}")
    return success


def main() -> None:
    """Run some episodes and print the success rate."""
    parser = argparse.ArgumentParser(description="Run episodes as a SimplerEnv script does.")
    parser.add_argument("--task", default="widowx_spoon_on_towel", choices=simpler_env.ENVIRONMENTS)
    parser.add_argument("--policy", default="random", choices=POLICIES)
    parser.add_argument("--episodes", type=int, default=3)
    arguments = parser.parse_args()
    env = simpler_env.make(arguments.task)
    policy = POLICIES[arguments.policy](env)
    successes = [run_episode(env, policy, episode_id) for episode_id in range(arguments.episodes)]
    print(f"success {sum(successes)}/{len(successes)}")
    env.close()


if __name__ == "__main__":
    main()
