"""Images become square as Prismatic VLMs make them: by Pillow's bicubic interpolation."""

import numpy as np
import pytest
import torch
from PIL import Image

from vla.api import Camera, InputError, Observation
from vla.checkpoints import published
from vla.checkpoints.checkpoint import Choices
from vla.images import CROP, LETTERBOX, NAIVE, STRATEGIES, Resize
from vla.processing import Processing, Range

SIZES = [(480, 640), (512, 640), (640, 480), (100, 121), (224, 224)]
FILL = (123, 116, 103)


def picture(height: int, width: int) -> np.ndarray:
    """A gradient with noise: smooth and sharp."""
    random = np.random.default_rng(height)
    ramp = np.linspace(0, 200, width)[None, :, None] * np.ones((height, 1, 3))
    return (ramp + random.integers(0, 55, (height, width, 3))).astype(np.uint8)


def pillow(image: np.ndarray, strategy: str, size: int) -> np.ndarray:
    """torchvision's Resize and CenterCrop, Prismatic's LetterboxPad, over Pillow."""
    made = Image.fromarray(image)
    width, height = made.size
    if strategy == LETTERBOX:
        side = max(width, height)
        left, top = int((side - width) / 2), int((side - height) / 2)
        bordered = Image.new("RGB", (width + 2 * left, height + 2 * top), FILL)
        bordered.paste(made, (left, top))
        made, (width, height) = bordered, bordered.size
    if strategy == NAIVE:
        return np.asarray(made.resize((size, size), Image.Resampling.BICUBIC))
    short = min(width, height)
    made = made.resize((int(size * width / short), int(size * height / short)), Image.Resampling.BICUBIC)
    width, height = made.size
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.asarray(made.crop((left, top, left + size, top + size)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_within_rounding_of_pillow(strategy: str, size: tuple[int, int]) -> None:
    image = picture(*size)
    ours = Resize(224, strategy)(torch.from_numpy(image).movedim(-1, 0), FILL).movedim(0, -1).numpy()
    difference = np.abs(ours.astype(int) - pillow(image, strategy, 224).astype(int))
    assert ours.shape == (224, 224, 3)
    assert difference.max() <= 2  # both round between rows and columns, not always to the same side
    assert difference.mean() < 0.02


def test_an_image_of_the_right_size_is_left_as_it_is() -> None:
    image = torch.from_numpy(picture(224, 224)).movedim(-1, 0)
    for strategy in STRATEGIES:
        assert torch.equal(Resize(224, strategy)(image, FILL), image)


@pytest.mark.parametrize("arguments", [(0, NAIVE), (224.0, NAIVE), (True, NAIVE), (224, "squeeze")])
def test_a_wrong_resize_is_refused(arguments: tuple[int, str]) -> None:
    with pytest.raises(InputError, match="resize: "):
        Resize(*arguments)


def processing(strategy: str, size: int = 224) -> Processing:
    scale = Range((-1.0,) * 7, (1.0,) * 7, (True,) * 7)
    return published.processing("bridge_orig", scale, Choices(), size, strategy)


def test_each_tower_sees_the_image_in_its_own_normalisation() -> None:
    image = picture(480, 640)
    pixels = processing(NAIVE).images(Observation({"3rd_view_camera": image}, "go"))
    assert pixels.shape == (1, 1, 6, 224, 224)
    colours = torch.from_numpy(pillow(image, NAIVE, 224).astype(np.float32)).movedim(-1, 0) / 255
    imagenet = (torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225]))
    dino = (colours - imagenet[0][:, None, None]) / imagenet[1][:, None, None]
    torch.testing.assert_close(pixels[0, 0, :3], dino, atol=1.01 / 255 / 0.224, rtol=0)
    torch.testing.assert_close(pixels[0, 0, 3:], (colours - 0.5) / 0.5, atol=1.01 / 255 / 0.5, rtol=0)


def test_each_tower_has_a_letterbox_border_of_its_own_mean() -> None:
    pixels = processing(LETTERBOX).images(Observation({"3rd_view_camera": picture(480, 640)}, "go"))
    assert pixels[0, 0, :, 0].abs().max() < 0.02  # the mean, normalised, up to the rounding to whole grey levels


def test_processing_with_all_of_this_survives_a_round_trip() -> None:
    for strategy in (NAIVE, CROP, LETTERBOX):
        made = processing(strategy, size=28)
        assert Processing.from_dict(made.to_dict()) == made


def test_the_camera_is_as_large_as_in_the_dataset() -> None:
    assert processing(NAIVE).cameras == (Camera("3rd_view_camera", 480, 640),)
