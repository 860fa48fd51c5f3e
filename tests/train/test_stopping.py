"""A signal ends the fit of a classical model, also where Python swallows the first exception."""

import os
import signal
import time

import pytest

from irnet_hpc.distributed.processes import STOP_SIGNALS
from irnet_hpc.train.run import TrainOptions
from irnet_hpc.train.stopping import Stopped, stopped_by_exception


class LateFinalizer:
    """An object in whose finalizer the signal arrives, as if the collector ran at that moment."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)


@pytest.fixture(autouse=True)
def actions():
    """Give the signals the actions that they have in a new process."""
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    for number, (action, *_) in STOP_SIGNALS.items():
        signal.signal(number, action)
    yield
    for number, action in before.items():
        signal.signal(number, action)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_a_finalizer_swallows_ends_the_fit_a_moment_later():
    reached, before = [], [signal.getsignal(number) for number in STOP_SIGNALS]
    with (
        pytest.raises(Stopped),
        stopped_by_exception(TrainOptions(stop_on_signals=True)),
    ):
        finalized = LateFinalizer()
        del finalized
        reached.append("after the finalizer")
        time.sleep(60)
    assert reached == ["after the finalizer"]
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


def test_no_signal_leaves_the_timer_as_it_was():
    with stopped_by_exception(TrainOptions(stop_on_signals=True)) as until:
        assert until == float("inf")
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
