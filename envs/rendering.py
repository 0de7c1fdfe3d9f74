"""Camera images, and a clear word when there is no OpenGL to draw them with."""

import weakref
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from envs.backdrop import Backdrop, Picture, averaged, photograph
from envs.errors import RenderingError, UnknownNameError
from envs.scene import SCENERY

_GL_RENDERER = 0x1F01
_SUPERSAMPLING = 3  # times as many rows and columns for a backdrop, which is drawn only once
_EVERYTHING = (0, 1, SCENERY)  # geom groups, all but hidden collision shapes
_SIMULATED = (0, 1)
_SCENERY = (SCENERY,)


class CameraRenderer:
    """Draws what the cameras of one model see; owns one OpenGL context of this process.

    Args:
        model: compiled scene; its offscreen buffer must be as large as the image.
        image_size: (height, width) in pixels.
        composite: draw only robot, objects and articulated furniture, over a backdrop in place of the scenery
            (visual matching); False draws the whole scene, with shadows on the scenery.
        photo: picture to use as backdrop instead of the scenery itself.

    Raises:
        RenderingError: if no OpenGL context can be made.
        EnvError: if the photo cannot be read.
    """

    def __init__(
        self, model: mujoco.MjModel, image_size: tuple[int, int], composite: bool = False, photo: Path | None = None
    ) -> None:
        self._height, self._width = image_size
        self._composite = composite
        self._photo = None if photo is None else photograph(photo, image_size)
        self._backdrops: dict[str, tuple[bytes, Backdrop]] = {}
        self._contexts: list[mujoco.MjrContext] = []  # of the model that is loaded
        try:
            self._gl = mujoco.GLContext(self._width, self._height)
            self._finalizer = weakref.finalize(self, _free, self._gl, self._contexts)
            self.load(model)
        except Exception as error:  # every OpenGL back end fails with exceptions of its own
            raise RenderingError.because(error) from error

    def load(self, model: mujoco.MjModel) -> None:
        """Draw another model from now on, in the same OpenGL context."""
        self._model = model
        self._scene = mujoco.MjvScene(model, maxgeom=model.ngeom + 1)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX.value] = False
        self._gl.make_current()
        while self._contexts:
            self._contexts.pop().free()
        self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50.value)
        self._contexts.append(self._context)
        self._context.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR.value
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._backdrops.clear()

    @property
    def name(self) -> str:
        """The OpenGL renderer, for example `llvmpipe (LLVM 15.0.6, 512 bits)`."""
        from OpenGL import GL  # an import chooses the platform, so only after mujoco made a context

        self._gl.make_current()
        name: Any = GL.glGetString(_GL_RENDERER)
        return name.decode() if name else "unknown"

    def image(self, data: mujoco.MjData, camera: str) -> Picture:
        """(height, width, 3) RGB.

        Raises:
            UnknownNameError: listing the cameras of the model.
        """
        if not self._composite:
            return np.ascontiguousarray(self._draw(data, camera, _EVERYTHING)[0])
        return self._backdrop(data, camera).behind(*self._draw(data, camera, _SIMULATED))

    def segmentation(self, data: mujoco.MjData, camera: str) -> NDArray[np.int32]:
        """(height, width) id of the body that is seen: 0 is fixed scenery, -1 where there is nothing.

        Raises:
            UnknownNameError: listing the cameras of the model.
        """
        flags = [mujoco.mjtRndFlag.mjRND_SEGMENT.value, mujoco.mjtRndFlag.mjRND_IDCOLOR.value]
        self._scene.flags[flags] = True
        colours, _ = self._draw(data, camera, _EVERYTHING)
        self._scene.flags[flags] = False
        drawn = self._scene.geoms[: self._scene.ngeom]
        bodies = np.full(self._scene.ngeom + 1, -1, np.int32)  # 0 is the colour of nothing
        bodies[[geom.segid + 1 for geom in drawn]] = self._model.geom_bodyid[[geom.objid for geom in drawn]]
        return bodies[colours @ np.array([1, 1 << 8, 1 << 16])]

    def close(self) -> None:
        """Free the OpenGL context; more than once does no harm."""
        self._finalizer()

    def _backdrop(self, data: mujoco.MjData, camera: str) -> Backdrop:
        """The scenery from where the camera is now; drawn again only when the camera has moved."""
        where = data.camera(camera)
        pose = where.xpos.tobytes() + where.xmat.tobytes()
        if self._backdrops.get(camera, (b"",))[0] != pose:
            self._backdrops[camera] = pose, self._draw_backdrop(data, camera)
        return self._backdrops[camera][1]

    def _draw_backdrop(self, data: mujoco.MjData, camera: str) -> Backdrop:
        _, nearness = self._draw(data, camera, _SCENERY)
        if self._photo is not None:
            return Backdrop(self._photo, nearness)
        buffer = self._context.offWidth, self._context.offHeight
        mujoco.mjr_resizeOffscreen(*(side * _SUPERSAMPLING for side in buffer), self._context)
        picture, _ = self._draw(data, camera, _SCENERY, _SUPERSAMPLING)
        mujoco.mjr_resizeOffscreen(*buffer, self._context)
        return Backdrop(averaged(picture, _SUPERSAMPLING), nearness)

    def _draw(
        self, data: mujoco.MjData, camera: str, groups: tuple[int, ...], scale: int = 1
    ) -> tuple[Picture, NDArray[np.float32]]:
        """(height, width, 3) RGB and (height, width) depth buffer, larger is nearer, of some geom groups."""
        height, width = self._height * scale, self._width * scale
        viewport = mujoco.MjrRect(0, 0, width, height)
        picture, nearness = np.empty((height, width, 3), np.uint8), np.empty((height, width), np.float32)
        self._look(data, camera, groups)
        self._gl.make_current()
        mujoco.mjr_render(viewport, self._scene, self._context)
        mujoco.mjr_readPixels(picture, nearness, viewport, self._context)
        return picture[::-1], nearness[::-1]  # OpenGL's first row is the lowest

    def _look(self, data: mujoco.MjData, camera: str, groups: tuple[int, ...]) -> None:
        cameras = [self._model.camera(index).name for index in range(self._model.ncam)]
        if camera not in cameras:
            raise UnknownNameError("camera", camera, cameras)
        view, option = mujoco.MjvCamera(), mujoco.MjvOption()
        view.type, view.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED.value, cameras.index(camera)
        option.geomgroup[:] = [group in groups for group in range(len(option.geomgroup))]
        option.sitegroup[:] = 0
        every = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(self._model, data, option, None, view, every, self._scene)


def _free(gl: Any, contexts: list[mujoco.MjrContext]) -> None:
    gl.make_current()
    for context in contexts:
        context.free()
    gl.free()
