"""Numbers in words: sizes, times, counts."""

_LEAST_FRACTION = 0.01


def counted(number: int, noun: str) -> str:
    """Write a number with its noun: "1 time", "2,000 times"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size_text(num_bytes: float) -> str:
    """Write a number of bytes for people: "12 bytes", "3.5 MiB"."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if num_bytes >= size:
            return f"{num_bytes / size:.3g} {unit}"
    return f"{num_bytes:.0f} bytes"


def time_left(fraction: float, elapsed: float) -> str:
    """Write the time that the rest will take at the pace so far; "" while that is a guess."""
    if fraction < _LEAST_FRACTION or fraction >= 1:
        return ""
    return f"about {duration(elapsed * (1 - fraction) / fraction)} left"


def duration(seconds: float) -> str:
    """Write seconds for people: "8 s", "3 min 20 s", "1 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
