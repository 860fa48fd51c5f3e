"""One cell trained in this process, as the command would, without a command."""

from irnet_hpc import training
from irnet_hpc.errors import UserError
from irnet_hpc.replicas import Replica


def train(spec, recipe, key, data, path, comm, device, origin=None):
    """(network, state), or None where a signal stopped it. Raises UserError for what the command would leave in error.json."""
    replica = Replica(spec, recipe, key, data, path, origin)
    found = list(training.train([replica], comm, device, training.StopSignals()))
    if found and found[0].error:
        raise UserError(found[0].error)
    return (found[0].network, found[0].state) if found else None


class StopAfter:
    """Stands for a signal that arrives in a given step."""

    is_late = False

    def __init__(self, n_steps: int) -> None:
        self.left = n_steps

    @property
    def asked(self) -> bool:
        self.left -= 1
        return self.left <= 0
