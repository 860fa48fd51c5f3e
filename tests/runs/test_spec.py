"""Specifications: keys and recipes of results."""

import dataclasses

import numpy as np
import pytest

from irnet_hpc.errors import UserError
from irnet_hpc.runs.recipes import RECIPES, Recipe
from irnet_hpc.runs.spec import RunSpec, read_recipe, run_id, run_key, run_name


def test_a_key_changes_with_what_changes_the_numbers_and_with_nothing_else():
    spec, recipe, identity = (
        RunSpec("p", "q", "irnet", 17),
        RECIPES["paper"],
        {"source_sha256": "1", "content_sha256": "x"},
    )
    key = run_key(spec, recipe, identity)
    assert key == run_key(spec, recipe, identity | {"content_sha256": "y"})
    assert key != run_key(spec, recipe, identity | {"source_sha256": "2"})
    assert key != run_key(spec, RECIPES["onecycle"], identity)
    assert key != run_key(RunSpec("p", "q", "irnet", 17, seed=1), recipe, identity)


def test_a_new_field_with_a_neutral_default_leaves_keys_and_results_as_they_are():
    @dataclasses.dataclass(frozen=True)
    class Later(Recipe):
        new: float = 0.0

    spec, fields = RunSpec("p", "q", "irnet", 17), dataclasses.asdict(RECIPES["onecycle"])
    key = run_key(spec, RECIPES["onecycle"], {})
    assert key == run_key(spec, Later(**fields), {})
    assert key != run_key(spec, Later(**fields, new=1.0), {})
    del fields["decay_epochs"]  # as a result has it that is older than the field
    assert read_recipe(spec, fields) == RECIPES["onecycle"]
    with pytest.raises(UserError, match="unknown field of a recipe 'warp'"):
        read_recipe(spec, fields | {"warp": 1})


@pytest.mark.parametrize("wrong", [{"seed": "a"}, {"seed": -1}, {"depth": "17"}])
def test_a_seed_or_depth_of_another_type_is_a_mistake(wrong):
    with pytest.raises(UserError):
        RunSpec("alloys-magpie", "mixing_enthalpy", "irnet", **{"depth": 17} | wrong)


@pytest.mark.parametrize("whole", [int, np.int64, np.int32, np.uint8])
def test_whole_numbers_of_numpy_are_the_run_that_ints_are(whole):
    """Such as seeds of np.arange; json knows no numbers of numpy, so a traceback had come."""
    spec = RunSpec("p", "band_gap", "irnet", whole(17), seed=whole(3), train_rows=whole(100))
    same = RunSpec("p", "band_gap", "irnet", 17, seed=3, train_rows=100)
    assert run_name(spec) == "p/band_gap/irnet-17/onecycle/honest-n100/seed3"
    recipe = RECIPES["onecycle"]
    assert run_key(spec, recipe, {}) == run_key(same, recipe, {})
    assert run_id(spec, recipe) == run_id(same, recipe)


@pytest.mark.parametrize("field", ["seed", "depth", "train_rows"])
@pytest.mark.parametrize("value", [17.0, np.float64(17), True, "17", np.bool_(True)])
def test_what_only_equals_a_whole_number_is_refused(field, value):
    """A depth of 17.0 had trained a second run beside that of 17, in a folder irnet-17.0."""
    fields = {"pack": "p", "property": "band_gap", "architecture": "irnet", "depth": 17}
    with pytest.raises(UserError, match=field):
        RunSpec(**fields | {field: value})
