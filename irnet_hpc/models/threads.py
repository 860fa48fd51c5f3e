"""Choose the number of threads of a network on a CPU by what pays. Needs no torch."""

import itertools

from irnet_hpc.models.architectures import Layers

# A thread pays if a matrix product gives it so many multiplications and additions, on an otherwise
# idle machine. Threads that soon sleep (processes.wait_quietly) may cost 0.2 ms a step of
# three layers there; with this number of operations each, two of them save more.
OPERATIONS = 1.5e7


def threads_that_pay(layers: Layers, n_rows: int, n_threads: int) -> int:
    """Return the number of threads that train a network fastest.

    With more threads a small network is slower: they wait for each other longer than they compute,
    and beside other busy processes much longer.

    Args:
        layers: The network.
        n_rows: The rows of a batch on one rank.
        n_threads: The number of threads that may be used.

    Returns:
        From 1 to `n_threads`. It depends on nothing else, so that a resumed run has as many.
    """
    widths = [stack.width for stack in layers.stacks for _ in range(max(stack.branches))]
    products = (a * b for a, b in itertools.pairwise(widths))
    largest = max(products, default=widths[0] if widths else 1)
    return max(1, min(n_threads, int(2 * n_rows * largest / OPERATIONS)))
