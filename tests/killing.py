"""A callback that ends its process where a test wants it to."""

import os
import signal

import lightning as L


class KillAt(L.Callback):
    """Sends this process a signal after a number of training steps, or in the test where that is None."""

    def __init__(self, *, step: int | None = None, name: str = "SIGKILL") -> None:
        self._step = step
        self._signal = signal.Signals[name]

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self._step:
            os.kill(os.getpid(), self._signal)

    def on_test_start(self, trainer, pl_module):
        if self._step is None:
            os.kill(os.getpid(), self._signal)
