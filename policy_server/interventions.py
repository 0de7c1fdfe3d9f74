"""Counts what a control loop had to do for safety, and logs it at a bounded rate."""

import logging

from policy_server.notices import Notices


class Interventions(Notices):
    """How often a control loop did each kind of thing.

    Args:
        interval: [s] between two lines about one kind.
    """

    def __init__(self, interval: float = 1.0) -> None:
        super().__init__(logging.getLogger("policy_server.control_loop"), interval)
