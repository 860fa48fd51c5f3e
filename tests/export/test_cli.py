"""The command `python -m irnet_hpc.export`."""

import subprocess
import sys

import pytest

from irnet_hpc.errors import UserError
from irnet_hpc.export import cli as export

pytest.importorskip("onnxscript")


def test_another_ending_and_a_missing_run_are_user_errors_and_leave_nothing(tmp_path):
    for run, model in (("nothing", "model.pt"), (str(tmp_path / "nothing"), "model.onnx")):
        with pytest.raises(UserError):
            export.main([run, str(tmp_path / model)])
    assert not list(tmp_path.iterdir())


def test_the_command_line_is_read_without_torch():
    program = (
        "import sys; from irnet_hpc.export.cli import parser; parser(); "
        "print([name for name in ('torch', 'h5py', 'numpy', 'onnx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
