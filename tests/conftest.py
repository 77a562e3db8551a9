"""Hypothesis profiles, chosen with HYPOTHESIS_PROFILE.

fast (the default): a few examples per property, new ones each run.
ci (the default where CI is set): as many, but the same ones every time.
thorough: many, for a change of a kernel.
"""

import os

from hypothesis import HealthCheck, settings

# No deadline: the first call of an op may compile or start threads, and machines differ.
# Data come from a seed, so a slow draw is no sign of a poor strategy.
_COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

settings.register_profile("fast", _COMMON, max_examples=30)
settings.register_profile("ci", _COMMON, max_examples=30, derandomize=True, print_blob=True)
settings.register_profile("thorough", _COMMON, max_examples=500)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "fast")
)
