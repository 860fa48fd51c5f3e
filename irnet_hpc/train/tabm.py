"""Train TabM (Gorishniy, Kotelnikov and Babenko, ICLR 2025): 32 networks that share most weights.

The network, its defaults and its initialisation come from its authors' package `tabm`. The loop is
that of their example: AdamW, with the loss averaged over the 32 members. Unlike in the example, the
loss is the absolute error, and the rate follows one cycle over a fixed number of epochs. So only
the point of the grid is selected, not the epoch.
"""

import contextlib
import math
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from irnet_hpc.errors import UserError

PREDICTED_ROWS = 2048  # at once
# The library draws from torch's own generators, so that fits in two threads would share the draws.
_one_fit = threading.Lock()


@contextlib.contextmanager
def _float32_by_default() -> Iterator[None]:
    """Let the library make its weights in float32, whatever default dtype the caller has set."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _network(n_features: int) -> Any:
    """Make the network with random weights."""
    try:
        import tabm
    except ImportError:
        raise UserError(
            "architecture tabm needs the package tabm, which is not installed; pip install tabm"
        ) from None
    with _float32_by_default():
        return tabm.TabM.make(n_num_features=n_features, d_out=1)


class TabM:
    """TabM as an estimator with fit and predict, for scaled features and targets."""

    def __init__(
        self,
        seed: int,
        device: torch.device,
        *,
        epochs: int,
        batch: int,
        learning_rate: float,
        weight_decay: float,
    ) -> None:
        self.seed, self.device, self.epochs, self.batch = seed, device, epochs, batch
        self.learning_rate, self.weight_decay = learning_rate, weight_decay

    def fit(self, x: np.ndarray, y: np.ndarray) -> "TabM":
        """Train the network; the state of torch's random generators is restored afterwards."""
        features, targets = (
            torch.from_numpy(np.ascontiguousarray(part, np.float32)).to(self.device)
            for part in (x, y)
        )
        batch = min(self.batch, len(features))
        # The number of steps per epoch; the rows that do not fill a batch are dropped.
        n_steps = len(features) // batch
        on_gpu = self.device.type == "cuda"
        with _one_fit, torch.random.fork_rng(devices=[self.device] if on_gpu else []):
            # torch.manual_seed would also seed GPUs that this fit does not use.
            torch.default_generator.manual_seed(self.seed)
            if on_gpu:
                with torch.cuda.device(self.device):
                    torch.cuda.manual_seed(self.seed)
            self.network = _network(features.shape[1]).to(self.device)
            adamw = torch.optim.AdamW(
                self.network.parameters(), self.learning_rate, weight_decay=self.weight_decay
            )
            cycle = torch.optim.lr_scheduler.OneCycleLR(
                adamw,
                self.learning_rate,
                total_steps=self.epochs * n_steps,
                pct_start=0.1,
                cycle_momentum=False,
            )
            self.network.train()
            for _ in range(self.epochs):
                order = torch.randperm(len(features)).to(self.device)
                for rows in order[: n_steps * batch].view(n_steps, batch):
                    with self._autocast():
                        prediction = self.network(features[rows])[:, :, 0]  # (batch, 32)
                    loss = (prediction.float() - targets[rows, None]).abs().mean()
                    adamw.zero_grad()
                    loss.backward()
                    adamw.step()
                    cycle.step()
                if not math.isfinite(loss.item()):
                    # The error on the rows that select will not be finite either.
                    break
        return self

    def restore(self, tensors: dict[str, Tensor], n_features: int) -> None:
        """Take over the weights of a fitted network, by their names in its state_dict().

        Raises:
            RuntimeError: If they are weights of another network.
        """
        with _one_fit, torch.random.fork_rng(devices=[]):
            network = _network(n_features)
        network.load_state_dict(tensors)
        self.network = network.to(self.device)

    @torch.no_grad()
    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the mean prediction of the members, (n_rows,) float64."""
        self.network.eval()
        parts = []
        for rows in torch.from_numpy(np.ascontiguousarray(x, np.float32)).split(PREDICTED_ROWS):
            with self._autocast():
                parts.append(self.network(rows.to(self.device))[:, :, 0].double().mean(1).cpu())
        return torch.cat(parts).numpy() if parts else np.empty(0)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16)
