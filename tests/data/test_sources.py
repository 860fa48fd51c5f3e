"""Filters of the sources."""

import numpy as np

from irnet_hpc.data.sources import SOURCES, Filter


def test_the_papers_filters_on_numbers_worked_out_by_hand():
    limits, deviations = SOURCES["oqmd"].filters[:2]
    values = np.array([-20, -19.9, 0, 4.9, 5, 43, np.nan])
    assert limits.breaks(values).tolist() == [True, False, False, False, True, True, False]
    # 99 zeros and a 100: mean 1, sd 9.95, so 100 lies 9.95 sd away; a 1 among 99 zeros just as
    # well, the 0s 0.1 sd.
    values = np.array([0.0] * 99 + [100.0] + [np.nan])
    assert np.flatnonzero(deviations.breaks(values)).tolist() == [99]
    assert [str(limits), str(deviations)] == [
        "-20 < formation_energy < 5 eV/atom",
        "|formation_energy - mean| <= 5 sd",
    ]
    assert not Filter("formation_energy", deviations=5).breaks(np.full(3, np.nan)).any()
