"""Call every name of the Python library once, on little data, with `str` for every path."""

import logging
import pathlib

import pandas as pd
import pytest

import irnet_hpc
from irnet_hpc import UserError

TINY = {
    "name": "tiny",
    "base": "onecycle",
    "epochs": 2,
    "batch": 16,
    "norm_group": 16,
    "precision": "fp32",
}
MATRIX = {
    "packs": ["steel-elements"],
    "properties": ["hardness"],
    "models": ["ridge"],
    "recipes": ["grid"],
    "seeds": [0],
    "resources": {"minutes": 1},
}
FORMULAS = [f"Fe{n}C{100 - n}" for n in range(1, 81)]


@pytest.fixture
def here(tmp_path, monkeypatch) -> str:
    """Change into an empty folder, far from the packs and results of others."""
    for name in ("IRNET_DATA", "IRNET_PACKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return str(tmp_path)


def test_every_name_works_and_none_prints(here, capsys, caplog):
    caplog.set_level(logging.INFO, "irnet_hpc")
    features = irnet_hpc.featurize(FORMULAS[:3], features="elements")
    assert features.shape == (3, 86) and list(features.index) == FORMULAS[:3]
    transformed = irnet_hpc.FormulaFeaturizer("elements").fit_transform(FORMULAS[:3])
    assert transformed.shape == (3, 86)

    table = pd.DataFrame({"formula": FORMULAS, "hardness": range(1, 81)})
    packed = irnet_hpc.pack_table(
        table, name="steel-elements", features="elements", units={"hardness": "GPa"}, workers=1
    )
    packed.close()
    with irnet_hpc.load_pack("steel-elements", pack_dir=f"{here}/packs") as pack:
        assert pack.to_frame(features=False)["hardness"].sum() == 80 * 81 / 2
        result = irnet_hpc.train_model(
            pack, "hardness", layers="16BARx1-1", recipe=TINY, results=f"{here}/results"
        )
        again = irnet_hpc.train_model(
            pack, "hardness", layers="16BARx1-1", recipe=TINY, results=f"{here}/results"
        )
    assert result.unit == "GPa" and again == result  # a finished run is read, not repeated

    cells = irnet_hpc.run_sweep(MATRIX, results=f"{here}/results")
    assert list(cells["state"]) == ["done"]
    frame = irnet_hpc.make_tables(f"{here}/results").frame()
    assert len(frame) == 2 and frame["unit"].unique().tolist() == ["GPa"]

    (run,) = [path.parent for path in pathlib.Path(here).rglob("model.safetensors")]
    predictions = irnet_hpc.load_model(str(run), pack_dir=f"{here}/packs").predict(["FeC"])
    places = {"results": f"{here}/results", "pack_dir": f"{here}/packs"}
    assert irnet_hpc.load_model(result, **places).predict(["FeC"]).equals(predictions)
    assert list(predictions["formula"]) == ["FeC"]

    x = pd.DataFrame({"a": range(40), "b": range(0, 80, 2)})
    regressor = irnet_hpc.IRNetRegressor(layers="8BARx1-1", recipe=TINY)
    assert regressor.fit(x, x["a"]).predict(x).shape == (40,)

    assert capsys.readouterr().out == ""
    assert caplog.records  # what the commands print is logged


@pytest.mark.parametrize(
    "call",
    [
        lambda: irnet_hpc.featurize(["Fe", "Xx"], features="elements"),
        lambda: irnet_hpc.pack_table("nowhere.csv"),
        lambda: irnet_hpc.load_pack("nowhere"),
        lambda: irnet_hpc.train_model("nowhere", "hardness"),
        lambda: irnet_hpc.run_sweep("nowhere.yaml"),
        lambda: irnet_hpc.make_tables("nowhere"),
        lambda: irnet_hpc.load_model("nowhere"),
    ],
    ids=[
        "featurize",
        "pack_table",
        "load_pack",
        "train_model",
        "run_sweep",
        "make_tables",
        "load_model",
    ],
)
def test_a_mistake_is_a_user_error_or_names_the_missing_file(call, here):
    with pytest.raises((UserError, FileNotFoundError), match=r"nowhere|Xx"):
        call()


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError):
        irnet_hpc.pack_tabel  # noqa: B018
    assert set(irnet_hpc.__all__) <= set(dir(irnet_hpc))
