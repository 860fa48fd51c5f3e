"""Specifications: keys and recipes of results."""

import dataclasses

import pytest

from irnet_hpc.errors import UserError
from irnet_hpc.runs.recipes import RECIPES, Recipe
from irnet_hpc.runs.spec import RunSpec, read_recipe, run_key


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
