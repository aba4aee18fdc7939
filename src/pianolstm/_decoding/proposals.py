"""What a draw of a chord is, whether it is of rows of a softmax or of notes."""

from __future__ import annotations

from typing import NamedTuple

from jax import Array


class Draw(NamedTuple):
    """What the draws of a frame have come to, before another one."""

    has_ended: Array  # bool (lanes,): where another piece begins
    bound: Array  # (lanes,): only rows of a relative probability above this are drawn again
    n_rejected: Array  # int32 (lanes,): chords that were not taken
    given: Given
    is_weighed: Array  # bool ()


class Given(NamedTuple):
    """Chords that are not drawn: forced, or recalled."""

    is_given: Array  # bool (lanes,)
    ids: Array  # int32 (lanes,)
    bits: Array  # uint32 (lanes, 8)


class Proposal(NamedTuple):
    """A chord that was drawn; where it is given, no more than its likelihood."""

    ids: Array  # int32 (lanes,): as in `Sample`
    bits: Array  # uint32 (lanes, 8)
    hold: Array  # int32 (lanes,)
    ends: Array  # bool (lanes,): whether the piece ends in its place
    is_taken: Array  # bool (lanes,): if not, there is one more draw
    bound: Array  # (lanes,): as in `Draw`
    log_p: Array  # (lanes,): nats by the network, temperature 1; 0 where nothing is weighed
    log_allowed: Array  # (lanes,): nats of all that was allowed, at the lane's temperature
