"""Compositing obeys SIMPLER's rule, photographs are read or refused clearly, and bodies are told apart."""

from collections.abc import Iterator
from pathlib import Path

import mujoco
import numpy as np
import pytest
from PIL import Image

import envs
from envs.backdrop import averaged, photograph
from envs.errors import EnvError, UnknownNameError
from envs.rendering import CameraRenderer
from envs.scene import FOREGROUND, HIDDEN, SCENERY

SIZE = (48, 64)
WORLD = """
<mujoco>
  <visual><global offwidth="64" offheight="48"/><quality shadowsize="256" offsamples="0"/></visual>
  <worldbody>
    <light type="directional" dir="0 0 -1" pos="0 0 2" castshadow="false"/>
    <camera name="above" pos="0 0 1"/>
    <geom name="floor" type="plane" size="0 0 0.1" rgba="0.2 0.5 0.8 1" group="{scenery}"/>
    <geom name="shelf" type="box" pos="0.2 0 0.4" size="0.1 0.5 0.01" rgba="0.9 0.9 0.2 1" group="{scenery}"/>
    <geom type="box" pos="0 0 0.8" size="0.5 0.5 0.01" group="{hidden}"/>
    <body name="cube" pos="0 0 {height}">
      <freejoint/>
      <geom type="box" size="0.15 0.1 0.1" rgba="0.9 0.1 0.1 1" group="{foreground}"/>
    </body>
  </worldbody>
</mujoco>
"""


def world(height: float = 0.1) -> tuple[mujoco.MjModel, mujoco.MjData]:
    """A red cube [m] above a blue floor, partly under a yellow shelf."""
    groups = {"scenery": SCENERY, "hidden": HIDDEN, "foreground": FOREGROUND}
    model = mujoco.MjModel.from_xml_string(WORLD.format(height=height, **groups))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


@pytest.fixture(scope="module")
def matched() -> Iterator[CameraRenderer]:
    renderer = CameraRenderer(world()[0], SIZE, composite=True)
    yield renderer
    renderer.close()


@pytest.fixture(scope="module")
def plain() -> Iterator[CameraRenderer]:
    renderer = CameraRenderer(world()[0], SIZE)
    yield renderer
    renderer.close()


def test_the_object_is_simulated_and_everything_else_is_backdrop(
    matched: CameraRenderer, plain: CameraRenderer
) -> None:
    _, data = world()
    image, cube = matched.image(data, "above"), matched.segmentation(data, "above") == 1
    _, elsewhere = world(height=-1.0)
    backdrop = matched.image(elsewhere, "above")
    assert 0.02 < cube.mean() < 0.5
    np.testing.assert_array_equal(image[~cube], backdrop[~cube])
    np.testing.assert_array_equal(image[cube], plain.image(data, "above")[cube])


def test_scenery_hides_what_is_behind_it(matched: CameraRenderer) -> None:
    _, data = world()
    _, above = world(height=0.6)
    shelf = matched.image(world(height=-1.0)[1], "above")[24, 41]
    assert shelf[0] > 100  # yellow
    np.testing.assert_array_equal(matched.image(data, "above")[24, 41], shelf)
    assert not np.array_equal(matched.image(above, "above")[24, 41], shelf)


def test_a_photograph_replaces_the_scenery(tmp_path: Path) -> None:
    model, data = world()
    colours = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "lab.png")
    renderer = CameraRenderer(model, SIZE, composite=True, photo=tmp_path / "lab.png")
    image, cube = renderer.image(data, "above"), renderer.segmentation(data, "above") == 1
    renderer.close()
    np.testing.assert_array_equal(image[~cube], colours[~cube])
    assert (image[cube, 0] > image[cube, 2]).all()  # red


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"])
def test_photographs_of_any_mode_are_stretched_to_the_image(tmp_path: Path, mode: str) -> None:
    Image.new("RGB", (30, 20), (200, 100, 50)).convert(mode).save(tmp_path / "photo.png")
    assert photograph(tmp_path / "photo.png", SIZE).shape == (*SIZE, 3)


def test_a_photograph_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EnvError, match="does not exist"):
        photograph(tmp_path / "missing.png", SIZE)
    (tmp_path / "notes.png").write_text("not a picture")
    with pytest.raises(EnvError, match="cannot be read as a picture"):
        photograph(tmp_path / "notes.png", SIZE)
    with pytest.raises(EnvError, match="does not exist"):
        CameraRenderer(world()[0], SIZE, composite=True, photo=tmp_path)


def test_a_camera_that_moves_sees_another_backdrop(matched: CameraRenderer) -> None:
    _, data = world()
    before = matched.image(data, "above")
    data.camera("above").xpos[0] += 0.1
    assert not np.array_equal(matched.image(data, "above"), before)
    data.camera("above").xpos[0] -= 0.1
    np.testing.assert_array_equal(matched.image(data, "above"), before)


def test_segmentation_tells_bodies_from_the_world_and_from_nothing(plain: CameraRenderer) -> None:
    model, data = world()
    assert set(np.unique(plain.segmentation(data, "above"))) == {0, 1}
    model.geom_group[:2] = HIDDEN
    plain.load(model)
    assert set(np.unique(plain.segmentation(data, "above"))) == {-1, 1}
    plain.load(world()[0])


def test_loading_another_model_draws_as_a_new_renderer_does(plain: CameraRenderer) -> None:
    model, data = world(height=0.3)
    plain.load(model)
    again = CameraRenderer(model, SIZE)
    np.testing.assert_array_equal(plain.image(data, "above"), again.image(data, "above"))
    assert again.image(data, "above").flags.c_contiguous
    again.close()


def test_an_unknown_camera_is_refused_by_name(plain: CameraRenderer) -> None:
    with pytest.raises(UnknownNameError, match="above"):
        plain.image(world()[1], "below")


def test_closing_twice_does_no_harm() -> None:
    renderer = CameraRenderer(world()[0], SIZE)
    assert renderer.name
    renderer.close()
    renderer.close()


def test_averaging_keeps_the_mean_of_every_block() -> None:
    picture = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    np.testing.assert_array_equal(averaged(picture, 2)[0, 0], picture[:, :2].reshape(-1, 3).mean(axis=0).round())


def test_images_left_out_change_nothing_else() -> None:
    """What is drawn later does not depend on what was drawn before."""
    shown = []
    for draws in (True, False):
        environment = envs.make("widowx_spoon_on_towel", image_size=(64, 64))
        environment.reset(seed=4)
        environment.draws = draws
        seen, *_ = environment.step(np.array([0.01, 0, -0.02, 0, 0, 0.1, -1], dtype=np.float32))
        assert bool(seen["images"]) is draws
        environment.draws = True
        shown.append((seen["state"], environment.step(environment.hold_action)[0]))
        environment.close()
    (state, last), (other_state, other_last) = shown
    np.testing.assert_array_equal(state, other_state)
    np.testing.assert_array_equal(last["images"]["3rd_view_camera"], other_last["images"]["3rd_view_camera"])
