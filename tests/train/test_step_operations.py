"""No operation of a step makes a GPU's host wait, or adds in an order that may change.

Operations are the same on every device, so a CPU shows them; tests/fake_gpu sees more, where torch
has CUDA.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.fake_gpu.steps import KINDS, begun, replicas

CPU = torch.device("cpu")
# The size of their result, or the next line of Python, depends on values on the device.
WAITING = {
    *("_local_scalar_dense", "item", "is_nonzero", "equal", "allclose"),
    *("nonzero", "masked_select", "unique_dim", "_unique2", "unique_consecutive"),
    *("bincount", "repeat_interleave.Tensor", "index(bool)", "index_put_(bool)"),
}
# On a GPU they add by atomic operations, in any order.
ANY_ORDER = {"index_add_", "index_add", "scatter_add_", "scatter_add", "index_put_", "cumsum"}


class Operations(TorchDispatchMode):
    """Collects the names of the operations within."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name, _, overload = str(function).removeprefix("aten.").partition(".")
        indices = arguments[1] if name in ("index", "index_put_") else ()
        is_mask = any(i is not None and i.dtype == torch.bool for i in indices)
        self.names |= {name, f"{name}.{overload}"} | ({f"{name}(bool)"} if is_mask else set())
        return function(*arguments, **keywords or {})


def operations_of(kind: str) -> set[str]:
    """Return the names of the operations of a step."""
    layers, k, n_properties, micro_batch, fields = KINDS[kind]
    _, step = begun(replicas(layers, k, n_properties, fields, CPU), micro_batch, CPU)
    with Operations() as found:
        step(0, False)
    return found.names


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "IRNet-" not in kind])
def test_a_step_has_no_operation_that_waits_or_adds_in_any_order(kind):
    found = operations_of(kind)
    products = {"mm", "addmm", "bmm", "baddbmm"}
    assert "index_select" in found and products & found  # it reads rows and multiplies them
    assert not found & (WAITING | ANY_ORDER)


def test_operations_that_wait_are_seen():
    x = torch.arange(4.0)
    with Operations() as found:
        x.sum().item()
        x[x > 1]
        torch.unique(x)
        x.index_add_(0, torch.tensor([0, 0]), torch.ones(2))
        if x.sum() > 0:
            x += 1
    assert {"_local_scalar_dense", "index(bool)", "_unique2"} <= found.names & WAITING
    assert "index_add_" in found.names & ANY_ORDER
