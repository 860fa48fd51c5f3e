"""Hold what the plan shows."""

import json

from tests.sweep.stand_ins import (
    SMALL,
)


def test_the_plan_shows_states_drops_and_cost(place, capsys):
    place.finish("plain-10")
    place.path.write_text(SMALL.replace("[mixing_enthalpy]", "[mixing_enthalpy, band_gap]"))
    assert place.sweep("plan") == 0
    shown = capsys.readouterr().out
    assert (
        "done      alloys-magpie/mixing_enthalpy/plain-10/onecycle/honest/seed0  MAE 0.125 eV/atom"
        in shown
    )
    assert "dropped   alloys-magpie × band_gap: the pack has mixing_enthalpy (6 cells)" in shown
    assert "mine: 6 cells: 1 done, 5 missing, 6 dropped" in shown
    assert "5 cells may take 2.50 device-hours of a budget of 3 before they are stopped" in shown
    assert place.sweep("plan", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["counts"] == {
        "done": 1,
        "running": 0,
        "queued": 0,
        "stale": 0,
        "preempted": 0,
        "failed": 0,
        "missing": 5,
    }
    assert [cell["test_mae"] for cell in told["cells"]] == [0.125] + [None] * 5
    assert told["asked_device_hours"] == 2.5
