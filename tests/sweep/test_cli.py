"""Hold the command line of sweeps: questions, mistakes, exit status."""

import pytest

from irnet_hpc.errors import UserError
from irnet_hpc.sweep import bundles, options
from tests.sweep.stand_ins import MODELS, SMALL, answers, command, fail


def test_retry_trains_the_failed_cells_alone_once_it_is_agreed_to(
    place, stand_in, monkeypatch, capsys
):
    paths = fail(place, "plain-10", "irnet-10")
    with pytest.raises(UserError, match=r"2 failed cells have reasons .* add --yes to confirm"):
        place.sweep("retry", "--failed", "--cluster", "local")
    asked = answers(monkeypatch, "")
    assert place.sweep("retry", "--failed", "--cluster", "local") == 0
    assert asked == ["2 failed cells have reasons that will be removed; train them again? [y/N] "]
    assert all(path.exists() for path in paths) and "nothing was started" in capsys.readouterr().out
    answers(monkeypatch, "y")
    assert place.sweep("retry", "--failed", "--cluster", "local") == 0
    done = {"plain-10": "done", "irnet-10": "done"}
    assert place.states() == dict.fromkeys(MODELS, "missing") | done
    assert not any(path.exists() for path in paths)
    assert place.sweep("retry", "--failed", "--cluster", "local") == 0
    assert "nothing to run" in capsys.readouterr().out


def test_a_stale_result_is_replaced_only_where_somebody_says_yes(place, stand_in, monkeypatch):
    place.finish("plain-10", key="other")
    before = (place.run_folder("plain-10") / "result.json").read_bytes()
    with pytest.raises(UserError, match="1 stale cells have results that will be replaced"):
        place.sweep("run", "--stale")
    answers(monkeypatch, "n")
    assert place.sweep("run", "--stale") == 0
    assert (place.run_folder("plain-10") / "result.json").read_bytes() == before
    assert set(place.states().values()) == {"stale", "missing"}  # nothing at all was started
    answers(monkeypatch, "yes")
    assert place.sweep("run", "--stale") == 0
    assert place.states()["plain-10"] == "done"


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon"])
def test_status_looks_again_after_some_time_or_says_that_it_cannot(place, capsys, text):
    with pytest.raises(SystemExit) as stopped:
        place.sweep("status", f"--watch={text}")
    assert stopped.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert "--watch" in last and repr(text) in last


@pytest.mark.parametrize("text", ["sedes: [0]", "packs: [a", "models: [resnet-17]"])
def test_bad_input_is_one_sentence_and_status_2(tmp_path, text):
    (tmp_path / "bad.yaml").write_text(SMALL + text)
    done = command("plan", tmp_path / "bad.yaml")
    assert done.returncode == 2
    assert (
        done.stderr.startswith(f"error: {tmp_path}/bad.yaml: ")
        and len(done.stderr.splitlines()) == 1
    )


def test_a_matrix_that_is_not_there_is_one_sentence_and_status_2(tmp_path):
    done = command("plan", tmp_path / "none.yaml")
    assert (done.returncode, done.stderr) == (
        2,
        f"error: {tmp_path}/none.yaml: No such file or directory\n",
    )


def test_the_parser_and_the_bundles_agree_on_the_word_for_as_many_as_fit():
    assert options.AUTO == bundles.AUTO
