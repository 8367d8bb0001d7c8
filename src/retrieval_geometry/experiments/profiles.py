"""The profiles of a run: how much of which data."""

PROFILES = ("quick", "real", "paper")
"""Bundled data in seconds, the data sets at hand, and the protocol of the papers. Used in chapter 4."""


def check_profile(profile: str) -> str:
    """Refusal of an unknown profile.

    Source: this package's own. Used in chapter 4.

    Raises:
        ValueError: no name of a profile; the message lists them.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}; got {profile!r}")
    return profile
