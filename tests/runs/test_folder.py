"""Run folders: what they hold and who may replace it."""

import pytest

from irnet_hpc.errors import UserError
from irnet_hpc.runs.folder import RunFolder


def test_a_result_that_cannot_be_read_is_named_and_replaced_only_when_asked(tmp_path):
    (tmp_path / "result.json").write_text('{"spec": {')
    with pytest.raises(UserError, match=r"is not JSON.*--force"):
        RunFolder(tmp_path).is_done("key")
    assert not RunFolder(tmp_path).is_done("key", force=True)
    assert (tmp_path / "result.json").exists()  # until the run that replaces it begins
