"""Durations and sizes as text."""


def format_seconds(seconds: float) -> str:
    """Return minutes and seconds, such as "2:05"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def size_text(nbytes: float) -> str:
    """Return a number of bytes with a unit, such as "1.5 GB"; in powers of 1000."""
    scales = {"GB": 1e9, "MB": 1e6, "kB": 1e3}
    unit = next((unit for unit, scale in scales.items() if nbytes >= scale), "kB")
    return f"{nbytes / scales[unit]:.1f} {unit}"
