"""How long what has failed waits: full jitter, so that what failed together does not come back together.

A pause is drawn from U(0, twice its mean) (Marc Brooker, "Exponential Backoff and Jitter", AWS Architecture
Blog, 2015), and from the time that is left where that is less, but for what it takes to try once more.
"""

import random
from typing import Final

from topology.names import RetryTier

_SHORTEST_S: Final = RetryTier.ONE_SECOND.delay_s
"""No retry tier gives anything back sooner."""
_TIMES_ITS_MEAN: Final = 2.0
_LEAVES_S: Final = 2.0
"""Time after the pause, to try once more and to tell the caller."""


def jittered(mean_s: float, left_s: float) -> float:
    """A pause of `mean_s` on average, in seconds, for a caller who has `left_s`; a second at least."""
    return max(_SHORTEST_S, random.uniform(0.0, min(_TIMES_ITS_MEAN * mean_s, left_s - _LEAVES_S)))
