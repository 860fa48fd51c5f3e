"""Checkpoints: two slots, of which a damaged one is passed over."""

import torch

from irnet_hpc.distributed.engines import Alone
from irnet_hpc.runs.folder import RunFolder


def test_a_torn_checkpoint_falls_back_to_the_one_before(alloys_pack, tmp_path, caplog):
    from irnet_hpc.train import checkpoint

    tensors, folder = {"w": torch.zeros(3)}, RunFolder(tmp_path)
    for step in (1, 2, 3):
        checkpoint.save(
            folder,
            "k",
            {"w": torch.full((3,), float(step))},
            checkpoint.State(step=step),
            Alone(),
        )
    assert sorted(p.name for p in (tmp_path / "checkpoint").iterdir()) == [
        "a.json", "a.safetensors", "b.json", "b.safetensors",
    ]  # fmt: skip
    assert checkpoint.resume(folder, "k", tensors, Alone()).step == 3 and tensors["w"][0] == 3
    newest = max(
        (tmp_path / "checkpoint").glob("*.safetensors"), key=lambda p: p.stat().st_mtime_ns
    )
    newest.write_bytes(newest.read_bytes()[:-1] + b"\x7f")
    assert checkpoint.resume(folder, "k", tensors, Alone()).step == 2 and tensors["w"][0] == 2
    assert "does not match its checksum" in caplog.text
    # The next goes where the damaged one was, whatever step that says it was of: the one that is
    # whole is not written over.
    sound = {
        path.name: path.read_bytes()
        for path in (tmp_path / "checkpoint").iterdir()
        if path.stem != newest.stem
    }
    checkpoint.save(folder, "k", {"w": torch.full((3,), 4.0)}, checkpoint.State(step=4), Alone())
    assert {name: (tmp_path / "checkpoint" / name).read_bytes() for name in sound} == sound
    assert checkpoint.resume(folder, "k", tensors, Alone()).step == 4 and tensors["w"][0] == 4
    said = newest.with_suffix(".json")
    said.write_text(said.read_text().replace('"step": 4', '"step": Infinity'))
    assert checkpoint.resume(folder, "k", tensors, Alone()).step == 2 and tensors["w"][0] == 2
    assert checkpoint.resume(folder, "another key", tensors, Alone()).step == 0
    # What another run left behind, however far it had come, does not stand in the way.
    checkpoint.save(
        folder, "another key", {"w": torch.full((3,), 9.0)}, checkpoint.State(step=1), Alone()
    )
    assert (
        checkpoint.resume(folder, "another key", tensors, Alone()).step == 1
        and tensors["w"][0] == 9
    )
