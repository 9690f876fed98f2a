"""A run that trains a part of the model that its forward pass does not use; everything else stays bit for bit."""

from torch import Tensor

from .loop import Run

# batches whose tokens or words are counted for the start of a part
COUNTED_BATCHES = 256


class PartRun(Run):
    """A run for the surrogate, or for the word head."""

    def backward(self, loss: Tensor) -> None:
        """Gradients averaged by hand: the part runs beside the forward pass that the library would watch."""
        super().backward(loss)
        if self.accelerator.sync_gradients:
            for weight in self.ema.live:
                weight.grad = self.accelerator.reduce(weight.grad, reduction="mean")
