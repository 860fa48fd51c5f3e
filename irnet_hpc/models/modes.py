"""Shield the library from the modes that a caller has switched on in torch."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def own_modes() -> Iterator[None]:
    """Compute as a new process would, whatever modes of torch the caller has switched on.

    Without it a recipe in fp32 would be trained in bf16 inside the caller's `torch.autocast`, and
    would still be called fp32; gradients are missing inside `torch.no_grad`; and tensors go to
    another device after `torch.set_default_device`. All these modes belong to the calling thread,
    and are as before at the end. It may also be used as a decorator.

    As torch 2.13 does it: `is_autocast_enabled` tells device types apart; only a mode that is on is
    switched off, since an active device mode makes each call of torch slower.
    """
    with contextlib.ExitStack() as modes:
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.enable_grad())
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                modes.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":
            modes.enter_context(torch.device("cpu"))
        yield
