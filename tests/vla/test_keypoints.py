"""The auxiliary loss: its least value where attention is at the points, and names that it understands."""

import pytest
import torch

from vla.api import InputError
from vla.training.keypoints import KeypointHead

NAMES = ("cup_x", "cup_y", "cup_z", "sine", "cup_u", "cup_v")


def attending(head: KeypointHead, scores: torch.Tensor, places: torch.Tensor) -> float:
    return float(head._misplaced(scores, places))


@pytest.mark.parametrize("cameras", [1, 2])
def test_attention_is_taught_to_go_where_the_point_is(cameras: int) -> None:
    head = KeypointHead(NAMES, 8, cameras)
    place = torch.tensor([[-0.75, 0.25]])  # of 4 x 4 tokens: the centre of the first column and of the third row
    uniform = torch.zeros(1, 16 * cameras, 1)
    there, elsewhere = uniform.clone(), uniform.clone()
    there[0, 2 * 4 + 0], elsewhere[0, 3] = 4.0, 4.0
    values = [attending(head, scores, place) for scores in (there, uniform, elsewhere)]
    assert values == sorted(values)
    assert 0 < values[0] < 0.8 * values[1]


def test_attention_that_spreads_as_the_label_does_costs_nothing() -> None:
    head = KeypointHead(NAMES, 8)
    cells = (torch.arange(4) + 0.5) / 2 - 1
    rows, columns = torch.meshgrid(cells, cells, indexing="ij")
    apart = ((columns + 0.3).square() + (rows - 0.1).square()) * 4  # [tokens ** 2]
    scores = (-apart / 0.6**2 / 2).flatten()[None, :, None]
    assert attending(head, scores, torch.tensor([[-0.3, 0.1]])) == pytest.approx(0, abs=1e-6)


def test_points_outside_the_image_teach_no_attention() -> None:
    head = KeypointHead(NAMES, 8)
    assert attending(head, torch.randn(1, 16, 1), torch.tensor([[1.2, 0.0]])) == 0


def test_without_places_the_loss_is_that_of_points_and_numbers() -> None:
    torch.manual_seed(0)
    head, plain = KeypointHead(NAMES, 8), KeypointHead(NAMES[:4], 8)
    plain.load_state_dict(head.state_dict())
    visual, cognition, labels = torch.randn(2, 16, 8), torch.randn(2, 8), torch.randn(2, 6)
    outside = torch.cat([labels[:, :4], torch.full((2, 2), 2.0)], dim=1)
    losses = head.loss(visual, cognition, outside), plain.loss(visual, cognition, labels[:, :4])
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize(
    "names",
    [
        ("sine", "cup_x", "cup_y", "cup_z"),
        ("cup_x", "cup_y", "cup_z", "cup_u", "cup_v", "sine"),
        ("cup_x", "cup_y", "cup_z", "cup_u"),
        ("cup_x", "cup_y", "cup_z", "dish_u", "dish_v"),
        ("sine",),
    ],
)
def test_other_names_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="key points must be named"):
        KeypointHead(names, 8)
