"""Properties that are to hold for numbers of every magnitude."""

from hypothesis import HealthCheck, given, settings, strategies

#: Powers of ten that float32 holds, and whose squares it does not.
MAGNITUDES = strategies.floats(-30, 30).map(lambda exponent: 10.0**exponent)


def at_every_magnitude(*strategies, examples=20):
    """A test of one number, or more, from 1e-30 to 1e30; the same in every run."""
    quick = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )

    def decorate(test):
        return quick(given(*(strategies or (MAGNITUDES,)))(test))

    return decorate
