"""Which timesteps of its noise schedule a diffusion head goes through."""

from vla.api import InputError

EVEN, QUADRATIC = "even", "quadratic"
SPACINGS = (EVEN, QUADRATIC)
_QUADRATIC_FROM = 0.8  # of the schedule


def timesteps_for(steps: int, train_steps: int, spacing: str = EVEN) -> list[int]:
    """Timesteps visited by DDIM, from noisy to clean, ending at 0; one step goes through the middle of the schedule.

    Args:
        steps: how many.
        train_steps: length of the schedule.
        spacing: "even"; or "quadratic": the closer together the cleaner, from four fifths of the schedule on (DDIM,
            arXiv 2010.02502, appendix D.2, and its code), where few steps come nearer to many.

    Raises:
        InputError: on an unknown spacing; if no stride visits exactly `steps` timesteps; if there are too many
            quadratic ones for all to differ.
    """
    if spacing not in SPACINGS:
        raise InputError(f"denoising steps are spaced {' or '.join(SPACINGS)}, got {spacing!r}")
    if steps == 1:
        return [train_steps // 2]
    if spacing == QUADRATIC:
        return _quadratic(steps, train_steps)
    strides = [stride for stride in range(1, train_steps) if len(range(0, train_steps, stride)) == steps]
    if not strides:
        allowed = sorted({len(range(0, train_steps, stride)) for stride in range(1, train_steps)} | {1})
        raise InputError(f"{steps} denoising steps do not divide a schedule of {train_steps}; allowed: {allowed}")
    return list(range(0, train_steps, strides[0]))[::-1]


def _quadratic(steps: int, train_steps: int) -> list[int]:
    def visited(count: int) -> list[int]:
        return [round(_QUADRATIC_FROM * train_steps * (place / (count - 1)) ** 2) for place in range(count)]

    most = max((count for count in range(2, train_steps) if len(set(visited(count))) == count), default=1)
    if not 1 < steps <= most:
        raise InputError(f"{steps} denoising steps cannot be quadratic in a schedule of {train_steps}; at most {most}")
    return visited(steps)[::-1]
