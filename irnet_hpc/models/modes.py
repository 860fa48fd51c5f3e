"""Protect the computations of this package from torch modes that a caller has switched on."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def own_modes() -> Iterator[None]:
    """Compute inside the block as in a new process, in torch's default modes.

    Otherwise the modes that the caller has set would have effects. Inside `torch.autocast`, a
    recipe in fp32 would be trained in bf16; inside `torch.no_grad`, there would be no gradients;
    and after `torch.set_default_device`, tensors would be made on another device. These modes
    belong to the calling thread, and are restored at the end. The default dtype belongs to the
    process, so it stays as it is, and networks are made in float32 by name. This function may also
    be used as a decorator.

    For torch 2.13: `is_autocast_enabled` is asked for each device type. Only a mode that is on is
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
