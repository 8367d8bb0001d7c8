"""The profiles of a run: how much of which data."""

PROFILES = ("quick", "real", "paper")


def check_profile(profile: str) -> str:
    """Refuse an unknown profile, listing those that exist."""
    if profile not in PROFILES:
        raise ValueError(f"profile must be one of {', '.join(PROFILES)}; got {profile!r}")
    return profile
