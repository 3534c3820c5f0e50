"""The profiles of the property tests.

Without `make fuzz` the examples are the same in each run, so that a failure is one of the change
that was made; `make fuzz` tries many more, others in each run. Neither counts the time.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

CHANCE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile("default", deadline=None, derandomize=True, suppress_health_check=CHANCE)
settings.register_profile(
    "fuzz",
    deadline=None,
    derandomize=False,
    max_examples=20_000,
    suppress_health_check=CHANCE,
)
settings.load_profile("default")
