"""From robot, scene, objects and variant to one compiled MuJoCo model."""

import mujoco

from envs import objects
from envs.staging import Staging
from envs.task import Start, Task


def build(task: Task, start: Start, staging: Staging, image_size: tuple[int, int]) -> mujoco.MjModel:
    """Compile robot, scene and the objects of a start.

    Args:
        image_size: (height, width) of the largest image to be drawn [pixels].

    Raises:
        EnvError: if the robot's assets cannot be used.
    """
    spec = _robot(task, staging)
    spec.option.timestep = task.robot.physics_step
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10.0
    spec.visual.global_.offheight, spec.visual.global_.offwidth = image_size
    task.scene.build(spec)
    for name in start.objects:
        objects.find(name).add_to(spec)
    staging.perturbation.edit(spec)
    return spec.compile()


def _robot(task: Task, staging: Staging) -> mujoco.MjSpec:
    if staging.robot_assets is None:
        return task.robot.spec(task.mount)
    from envs.menagerie import spec

    return spec(task.robot, task.mount, staging.robot_assets)
