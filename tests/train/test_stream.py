"""A pack that streams gives what a resident one gives, to the last bit; packs larger than the
memory do stream.
"""

import dataclasses
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from irnet_hpc.distributed import memory
from irnet_hpc.distributed.engines import Alone
from irnet_hpc.errors import UserError
from irnet_hpc.files import read_json
from irnet_hpc.pack.store import open_pack
from irnet_hpc.pack.writer import create_pack
from irnet_hpc.runs.recipes import resolve
from irnet_hpc.runs.result import read_result
from irnet_hpc.runs.spec import RunSpec, model_of
from irnet_hpc.train import cli as train
from irnet_hpc.train import dataset as data
from irnet_hpc.train import scaling, stream
from irnet_hpc.train.dataset import epoch_order, load
from irnet_hpc.train.stream import PackUnreadable
from tests import builders
from tests.builders import StopAfter

CPU = torch.device("cpu")
PLACES = ("resident", "stream")
GIB = 2**30


@pytest.fixture
def small_windows(monkeypatch):
    """Windows of 4 chunks of 16 rows: the 498 training rows of the alloys are 8 of them."""
    for module in (data, stream):
        monkeypatch.setattr(module, "SHUFFLED_ROWS", 16)
        monkeypatch.setattr(module, "WINDOW_PIECES", 4)


@pytest.fixture(scope="module")
def wide_pack(tmp_path_factory) -> Path:
    """3,000 rows of 128 features that tell the band gap. A chunk is too large for HDF5 to keep, so
    each pass reads the file.
    """
    path, random = tmp_path_factory.mktemp("wide") / "wide.h5", np.random.default_rng(0)
    x = random.normal(size=(3000, 128)).astype(np.float32)
    identity = {
        "source": "t",
        "source_sha256": "0" * 64,
        "rules": 1,
        "n_source_rows": 3000,
        "features": "columns",
    }
    identity |= {
        "properties": {"band_gap": "eV"},
        "feature_versions": {},
        "filters": [],
        "split": {"seed": 0},
    }
    with create_pack(path, [f"f{i}" for i in range(128)], 3000) as writer:
        writer.append(x)
        names, counts = (
            [f"Al{n}Ni" for n in range(1, 3001)],
            {"train": 2600, "val": 200, "test": 200},
        )
        writer.finish(names, names, {"band_gap": x[:, 0] ** 2.0}, counts, identity, {})
    return path


def loaded(
    path: Path, place: str, prop: str = "mixing_enthalpy", protocol: str = "honest", **changes
):
    recipe = resolve(
        {"name": "t", "base": "onecycle", "batch": 48, "norm_group": 16, "epochs": 3} | changes
    )
    spec = RunSpec("pack", prop, **model_of("32BARx2D0.1-1"), protocol=protocol)
    with open_pack(path) as pack:
        return spec, recipe, load(pack, spec, recipe, CPU, place=place)


def trained(folder: Path, spec, recipe, rows):
    torch.set_num_threads(1)
    return builders.train(spec, recipe, "key", rows, folder, Alone(), CPU)


def same(one, two) -> bool:
    """Whether two trainings agree in every number: weights, population statistics, learning rates,
    errors.
    """
    (first, a), (second, b) = one, two
    tensors = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return [row[:5] for row in a.history] == [row[:5] for row in b.history] and all(
        torch.equal(*t) for t in tensors
    )


# --------------------------------------------------------------------------------------------------
# ----------- the same


@pytest.mark.parametrize(
    ("prop", "changes"),
    [
        ("mixing_enthalpy", {"precision": "fp32"}),  # 48 divides no window: batches that span two
        ("mixing_enthalpy", {"precision": "fp64", "features": "raw", "target": "raw", "clip": 0.0}),
        ("mixing_enthalpy", {"precision": "fp32", "protocol": "paper"}),  # trains on val as well
        ("mixing_enthalpy,size_mismatch", {"precision": "fp32", "batch": 32}),
    ],
)
def test_a_streamed_training_is_the_resident_one_bit_for_bit(
    prop, changes, gaps_pack, tmp_path, small_windows
):
    outcomes = []
    for place in PLACES:
        spec, recipe, rows = loaded(gaps_pack, place, prop, **changes)
        outcomes.append(trained(tmp_path / place, spec, recipe, rows))
    assert same(*outcomes) and len(outcomes[0][1].history) == 3


@pytest.mark.parametrize("then", PLACES)
def test_a_streamed_training_that_is_stopped_within_an_epoch_ends_the_same(
    then, alloys_pack, tmp_path, small_windows, monkeypatch
):
    changes = {"precision": "fp32", "batch": 16, "epochs": 3}  # 31 steps an epoch
    undisturbed = trained(tmp_path / "a", *loaded(alloys_pack, "resident", **changes))
    stops = iter([40, 10**9])  # within the second epoch
    monkeypatch.setattr(builders, "NeverStop", lambda: StopAfter(next(stops)))
    assert trained(tmp_path / "b", *loaded(alloys_pack, "stream", **changes)) is None
    assert same(undisturbed, trained(tmp_path / "b", *loaded(alloys_pack, then, **changes)))


def test_the_command_streams_when_asked_says_so_and_leaves_the_same_result(
    alloys_pack, tmp_path, capsys
):
    recipe = "{name: q, base: onecycle, epochs: 2, batch: 64, norm_group: 32, precision: fp32}"
    folders = []
    for place, said in (("resident", "resident"), ("stream", "streamed"), ("auto", "resident")):
        arguments = [
            "--pack",
            alloys_pack,
            "--property",
            "mixing_enthalpy",
            "--layers",
            "32BARx2-1",
            "--recipe",
            recipe,
        ]
        assert (
            train.main([*map(str, arguments), "--results", str(tmp_path / place), "--data", place])
            == 0
        )
        assert f", data: {said}\n" in capsys.readouterr().out
        folders.append(next((tmp_path / place).rglob("result.json")).parent)
        assert [
            attempt["data"] for attempt in read_json(folders[-1] / "result.json")["attempts"]
        ] == [said]
    results = [dataclasses.asdict(read_result(folder / "result.json")) for folder in folders]
    changing = ("attempts", "wall_time_s", "device_hours", "samples_per_s", "peak_memory_gb")
    for result in results[1:]:
        assert {k: v for k, v in result.items() if k not in changing} == {
            k: v for k, v in results[0].items() if k not in changing
        }
    for name in ("model.safetensors", "test_predictions.npz"):
        assert len({(folder / name).read_bytes() for folder in folders}) == 1


def test_classical_models_do_not_stream_and_have_no_batches(alloys_pack, tmp_path):
    options = [
        "--pack",
        alloys_pack,
        "--property",
        "mixing_enthalpy",
        "--results",
        tmp_path,
        "--data",
        "stream",
    ]
    with pytest.raises(
        UserError,
        match=r"random_forest.* no batches",
    ):
        train.main([*map(str, options), "--architecture", "random_forest", "--micro-batch", "64"])
    with pytest.raises(UserError, match="random_forest"):
        train.main([*map(str, options), "--architecture", "random_forest"])
    with pytest.raises(UserError, match=r"unknown data 'steam' .did you mean 'stream'"):
        train.main([*map(str, options[:-1]), "steam", "--architecture", "random_forest"])


# --------------------------------------------------------------------------------------------------
# - windows and slabs


def test_an_epoch_is_read_in_its_windows_each_chunk_once(small_windows):
    row = np.sort(np.random.default_rng(0).permutation(1000)[:700])
    order = epoch_order(row, 0, 0)
    places = list(stream.windows(row, order))
    chunks = [set(row[order[window]] // 16) for window in places]
    assert [len(c) for c in chunks] == [4] * 15 + [3]  # 1000 rows are 63 chunks
    assert sum(map(len, chunks)) == len(set().union(*chunks))
    assert [w.stop for w in places] == [*(w.start for w in places[1:]), 700]


def test_any_order_from_any_step_on_gives_the_rows_it_names(gaps_pack, small_windows):
    """Of two ranks the second, and an order that no epoch has, with a batch that no window holds a
    whole number of.
    """
    _, _, resident = loaded(gaps_pack, "resident", precision="fp64")
    _, _, streamed = loaded(gaps_pack, "stream", precision="fp64")
    n = len(resident.train)
    for order in (epoch_order(resident.train.row, 1, 2), np.random.default_rng(1).permutation(n)):
        mine = order[: n // 10 * 10].reshape(-1, 10)[:, 5:]
        pairs = list(
            zip(streamed.train.batches(mine, 3), resident.train.batches(mine, 3), strict=True)
        )
        assert len(pairs) == n // 10 - 3
        assert all(torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in pairs)
    for part, whole in ((streamed.val, resident.val), (streamed.test, resident.test)):
        found = list(part.slabs(1, len(part), 7))
        assert torch.equal(torch.cat([x for _, x in found]), whole.x[1:])
        assert [places.start for places, _ in found] == list(range(1, len(part), 7))


def test_two_windows_are_in_memory_and_no_more(alloys_pack, small_windows, monkeypatch):
    _, _, rows = loaded(alloys_pack, "stream")
    made, read, empty = [], [], torch.empty
    monkeypatch.setattr(
        stream.torch, "empty", lambda *shape, **how: made.append(shape) or empty(*shape, **how)
    )
    inner = stream._read
    monkeypatch.setattr(
        stream, "_read", lambda s, order, held: read.append(len(order)) or inner(s, order, held)
    )
    order = epoch_order(rows.train.row, 0, 0)[:496].reshape(-1, 16)
    assert len(list(rows.train.batches(order))) == 31
    assert made == [(64, 86)] * 2 and len(read) == 8 and sum(read) == 496


def test_who_stops_in_the_midst_of_an_epoch_leaves_no_thread_behind(alloys_pack, small_windows):
    _, _, rows = loaded(alloys_pack, "stream")
    batches = rows.train.batches(epoch_order(rows.train.row, 0, 0)[:496].reshape(-1, 16))
    next(batches)
    assert any(thread.name.startswith("stream") for thread in threading.enumerate())
    batches.close()
    assert not any(thread.name.startswith("stream") for thread in threading.enumerate())


# --------------------------------------------------------------------------------------------------
# --------- statistics


@pytest.mark.parametrize("n_features", [1, 2, 3, 16, 145, 700])
def test_moments_taken_slab_by_slab_are_numpy_s_of_the_whole_to_the_last_bit(n_features):
    random = np.random.default_rng(n_features)
    x = (random.normal(size=(5001, n_features)) * random.exponential(size=n_features) * 100).astype(
        np.float32
    )
    x[:, 0] = -0.0

    def slabs():
        held = np.empty((777, n_features), np.float32)  # the same memory again, as a stream has it
        for start in range(0, len(x), 777):
            part = x[start : start + 777]
            held[: len(part)] = part
            yield held[: len(part)]

    for of in (slabs, lambda: [x], lambda: [np.asfortranarray(x)]):
        mean, deviation = scaling.moments(of)
        theirs = next(iter(of())) if of is not slabs else x
        assert mean.tobytes() == theirs.mean(0, dtype=np.float64).tobytes()
        assert deviation.tobytes() == theirs.std(0, dtype=np.float64).tobytes()


@pytest.mark.parametrize("clip", [0.0, 2.0])
def test_features_are_scaled_in_float64_and_rounded_once(clip):
    random = np.random.default_rng(0)
    x = random.normal(size=(1000, 145)).astype(np.float32)
    mean, scale = random.normal(size=145), random.exponential(size=145) + 0.1
    wanted = (x - mean) / scale
    wanted = (np.clip(wanted, -clip, clip) if clip else wanted).astype(np.float32)
    fitted = scaling.Scaling(mean, scale, clip, 0.0, 1.0)
    kept = x.copy()
    assert np.array_equal(fitted.features(x), wanted) and np.array_equal(x, kept)
    assert fitted.features(x, x) is x and np.array_equal(x, wanted)


# --------------------------------------------------------------------------------------------------
# ---------- a bad pack


def damage(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 64)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("harm", ["damage", "cut"])
def test_a_pack_that_is_damaged_or_cut_while_it_streams_is_one_sentence(harm, wide_pack, tmp_path):
    path = tmp_path / "wide.h5"
    path.write_bytes(wide_pack.read_bytes())
    _, _, rows = loaded(path, "stream", "band_gap")
    order = epoch_order(rows.train.row, 0, 0)[:2592].reshape(-1, 48)
    assert len(list(rows.train.batches(order))) == 54
    {"damage": damage, "cut": cut}[harm](path)
    with pytest.raises(
        PackUnreadable,
        match=r"wide.h5 cannot be read as a pack; it is damaged, cut short or not HDF5",
    ):
        list(rows.train.batches(order))


def test_a_pack_whose_name_is_gone_or_given_to_another_is_read_on(wide_pack, alloys_pack, tmp_path):
    """The file that was opened is there for as long as it is open."""
    path = tmp_path / "wide.h5"
    path.write_bytes(wide_pack.read_bytes())
    _, _, rows = loaded(path, "stream", "band_gap")
    before = torch.cat([x for _, x in rows.train.slabs(0, 2600, 512)])
    path.unlink()
    assert torch.equal(torch.cat([x for _, x in rows.train.slabs(0, 2600, 512)]), before)
    path.write_bytes(alloys_pack.read_bytes())
    assert torch.equal(torch.cat([x for _, x in rows.train.slabs(0, 2600, 512)]), before)


def test_of_a_pack_that_a_file_system_has_forgotten_it_is_said_that_it_has_gone(
    wide_pack, tmp_path, monkeypatch
):
    path = tmp_path / "wide.h5"
    path.write_bytes(wide_pack.read_bytes())
    _, _, rows = loaded(path, "stream", "band_gap")
    cut(path)  # so that reading fails, as a stale handle of a network file system would
    path.unlink()
    with pytest.raises(PackUnreadable, match=f"pack {path} was removed while it was being read"):
        list(rows.train.slabs(0, 2600, 512))


def test_the_command_ends_with_that_sentence_and_status_2(wide_pack, tmp_path):
    path = tmp_path / "wide.h5"
    path.write_bytes(wide_pack.read_bytes())
    arguments = [
        "--pack",
        path,
        "--property",
        "band_gap",
        "--layers",
        "16A-1",
        "--results",
        tmp_path / "results",
    ]
    arguments += [
        "--recipe",
        "{name: long, base: onecycle, epochs: 100000, batch: 64, norm_group: 32}",
    ]
    line = [sys.executable, "-m", "irnet_hpc.train", *map(str, arguments), "--data", "stream"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        next(text for text in process.stdout if text.startswith("epoch"))
        damage(path)
        _, errors = process.communicate(timeout=600)
    finally:
        process.kill()
    assert process.returncode == 2
    (sentence,) = errors.splitlines()
    assert sentence.startswith("error: ") and "is damaged" in sentence
    assert read_json(next((tmp_path / "results").rglob("error.json")))["error"] in sentence


# --------------------------------------------------------------------------------------------------
# -- when it is too large


def test_auto_streams_what_would_fill_more_than_its_share_of_the_free_memory(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 8 * GIB)  # of which half may be filled
    n_rows = 4 * GIB // (4 * 128)
    for dtype, n, wanted in ((torch.float32, n_rows, False), (torch.float32, n_rows + 1, True)):
        assert data.streams("auto", n, 128, CPU, dtype) is wanted
    assert (
        data.streams("auto", n_rows // 3, 128, CPU, torch.float64) is False
    )  # 4 bytes are read and 8 made of them
    assert data.streams("auto", n_rows // 3 + 1, 128, CPU, torch.float64) is True
    assert data.streams("stream", 1, 1, CPU, torch.float32) and not data.streams(
        "resident", 2**40, 9, CPU, torch.float32
    )


def test_auto_streams_what_the_device_has_no_room_for(monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 10**15)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 * GIB, 80 * GIB))
    device, n_rows = torch.device("cuda", 0), GIB // (4 * 128)
    assert not data.streams("auto", n_rows, 128, device, torch.float32)
    assert data.streams("auto", n_rows + 1, 128, device, torch.float32)


def host(root: Path, files: dict[str, str]) -> Path:
    for name, text in (
        {"proc/meminfo": "MemTotal: 99999999 kB\nMemAvailable:   33554432 kB\n"} | files
    ).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_the_memory_that_is_free_is_what_the_tightest_limit_leaves(tmp_path):
    assert memory.free_bytes(host(tmp_path / "none", {}), {}) == 32 * GIB
    groups = {
        "proc/self/cgroup": "0::/job/step\n",
        "sys/fs/cgroup/job/memory.max": str(16 * GIB),
        "sys/fs/cgroup/job/memory.current": str(10 * GIB),
        # of files, which go where memory is wanted
        "sys/fs/cgroup/job/memory.stat": f"anon 1\ninactive_file {4 * GIB}\n",
        "sys/fs/cgroup/job/step/memory.max": "max\n",
        "sys/fs/cgroup/job/step/memory.current": "1\n",
    }
    assert memory.free_bytes(host(tmp_path / "v2", groups), {}) == 10 * GIB
    older = {
        "proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/slurm/job\n0::/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": str(40 * GIB),
        "sys/fs/cgroup/memory/slurm/job/memory.limit_in_bytes": str(6 * GIB),
        "sys/fs/cgroup/memory/slurm/job/memory.usage_in_bytes": str(2 * GIB),
        "sys/fs/cgroup/memory/slurm/job/memory.stat": f"total_inactive_file {GIB}\n",
    }
    assert memory.free_bytes(host(tmp_path / "v1", older), {}) == 5 * GIB
    inside = {  # a container: its own group is the root, whatever its path is outside
        "proc/self/cgroup": "0::/docker/abc\n",
        "sys/fs/cgroup/memory.max": str(3 * GIB),
        "sys/fs/cgroup/memory.current": str(GIB),
    }
    assert memory.free_bytes(host(tmp_path / "docker", inside), {}) == 2 * GIB


def test_slurm_s_limit_is_shared_by_the_ranks_of_the_node(tmp_path):
    root = host(tmp_path, {"proc/self/status": "VmRSS:\t  1048576 kB\n"})
    step = {
        "SLURM_PROCID": "1",
        "SLURM_NTASKS": "4",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_ID": "0",
        "SLURM_JOB_ID": "7",
    }
    step |= {"SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_TASKS_PER_NODE": "4"}
    assert memory.free_bytes(root, step) == 8 * GIB  # a quarter of 32
    assert (
        memory.free_bytes(root, step | {"SLURM_MEM_PER_NODE": "12288"}) == 2 * GIB
    )  # (12 - 4 that 4 ranks have) / 4
    of_cpus = {"SLURM_MEM_PER_CPU": "1024", "SLURM_CPUS_ON_NODE": "16"}
    assert memory.free_bytes(root, step | of_cpus) == 3 * GIB
    assert (
        memory.free_bytes(root, step | {"SLURM_MEM_PER_NODE": "0"}) == 8 * GIB
    )  # all that the node has
    assert memory.free_bytes(root, step | {"SLURM_MEM_PER_NODE": "1024"}) == 0
