from irnet_hpc.distributed.engines import Alone
from irnet_hpc.doctor import probes


class Deaf(Alone):
    """One of two ranks that do not hear each other: each takes its own numbers for the sum."""

    size = 2


class Careless(Alone):
    """An engine that gets one number of five million wrong."""

    def sum_(self, tensor):
        tensor[-1:] += 1
        return tensor


def test_a_sum_that_is_wrong_anywhere_is_found(monkeypatch):
    monkeypatch.setattr(probes, "N_SUMMED", 5000)
    assert probes.allreduce(Alone())["right"]
    assert not probes.allreduce(Deaf())["right"]
    assert not probes.allreduce(Careless())["right"]
