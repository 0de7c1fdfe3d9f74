"""Camera images, and a clear word when there is no OpenGL to draw them with."""

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.errors import RenderingError

_GL_RENDERER = 0x1F01


class CameraRenderer:
    """Draws the cameras of one model; owns one OpenGL context of this process.

    Args:
        model: compiled scene.
        image_size: (height, width) in pixels.

    Raises:
        RenderingError: if no OpenGL context can be made.
    """

    def __init__(self, model: mujoco.MjModel, image_size: tuple[int, int]) -> None:
        try:
            self._renderer = mujoco.Renderer(model, *image_size)
        except Exception as error:  # every OpenGL back end fails with exceptions of its own
            raise RenderingError.because(error) from error

    @property
    def name(self) -> str:
        """The OpenGL renderer, for example `llvmpipe (LLVM 15.0.6, 512 bits)`."""
        from OpenGL import GL  # an import chooses the platform, so only after mujoco made a context

        name: Any = GL.glGetString(_GL_RENDERER)
        return name.decode() if name else "unknown"

    def image(self, data: mujoco.MjData, camera: str) -> NDArray[np.uint8]:
        """(height, width, 3) RGB."""
        self._renderer.update_scene(data, camera)
        return self._renderer.render()

    def close(self) -> None:
        self._renderer.close()
