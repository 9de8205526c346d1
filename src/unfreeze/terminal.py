"""What a person sees in a terminal while something is counted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def counting_bar(title: str, total: int, *, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Yield what takes the number of things done, and shows it in a bar where there is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not (shown and console.is_terminal)) as progress:
        task = progress.add_task(f"  {title}", total=total)
        yield lambda done: progress.update(task, completed=done)
