"""Hold what the plan shows."""

import json

from tests.sweep.stand_ins import MODELS, SMALL

MORE = "recipes: [onecycle]\nseeds: [0, 1, 2]\n"


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
    assert "mine: 6 cells: 1 done, 5 missing" in shown and "dropped: 6 " in shown
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


def test_a_plan_with_every_result_says_that_nothing_is_left_to_do(place, capsys):
    place.finish(*MODELS)
    assert place.sweep("plan") == 0
    *_, last, following = capsys.readouterr().out.splitlines()
    assert last.startswith("nothing is left") and "stale" not in last
    assert " irnet_hpc.aggregate " in following
    place.finish(MODELS[0], key="of something else")
    assert place.sweep("plan") == 0
    assert "1 stale" in capsys.readouterr().out.splitlines()[-2]


def test_the_plan_says_what_the_matrix_holds_and_its_estimate_comes_before_its_limits(
    place, capsys
):
    place.path.write_text(SMALL.replace("models: [", "models: [ridge, ") + MORE)
    assert place.sweep("plan") == 0
    lines = capsys.readouterr().out.splitlines()
    (cells,) = (line for line in lines if line.startswith("cells: "))
    assert f"18 of networks ({', '.join(MODELS)}; recipe onecycle)" in cells
    assert "1 of classical models (ridge; recipe grid)" in cells and "3 seeds" in cells
    starts = [line.partition(":")[0] for line in lines]
    assert starts.index("estimate") < starts.index("limits") == len(lines) - 2
