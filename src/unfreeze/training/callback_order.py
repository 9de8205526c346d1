"""The order of callbacks, checked where it matters."""

import lightning as L

from unfreeze.errors import UnfreezeError


def check_comes_after(trainer: L.Trainer, callback: L.Callback, *earlier: L.Callback | None) -> None:
    """Refuse a callback that Lightning would run before the callbacks that it depends on.

    Args:
        trainer: With the callbacks in their order.
        callback: Depends on the others.
        earlier: Must come before it; None is left out.

    Raises:
        UnfreezeError: Naming the callback that comes too late or is missing.
    """
    order = [id(each) for each in trainer.callbacks]  # type: ignore[attr-defined]
    for each in earlier:
        if each is None:
            continue
        if id(each) not in order or order.index(id(each)) > order.index(id(callback)):
            raise UnfreezeError(
                f"callbacks: {type(callback).__name__} needs {type(each).__name__} before it; pass both to the Trainer "
                f"in the order [{type(each).__name__}, {type(callback).__name__}]"
            )
