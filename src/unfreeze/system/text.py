"""Values as a person reads them."""


def format_seconds(seconds: float) -> str:
    """Return minutes and seconds, as in 2:05."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
