"""What a result states about machine and software."""

import torch

from irnet_hpc.distributed.engines import Alone
from irnet_hpc.train import provenance


def test_a_node_without_git_has_no_commit_and_keeps_its_result(monkeypatch, tmp_path):
    tree = tmp_path / "clone"
    (tree / ".git").mkdir(parents=True)
    monkeypatch.setattr(provenance, "__file__", str(tree / "irnet_hpc/train/provenance.py"))
    monkeypatch.setenv("PATH", str(tmp_path / "no programs"))
    assert provenance.source_commit() is None
    assert provenance.provenance(Alone(), torch.device("cpu"))["commit"] is None


def test_a_package_that_is_no_checkout_has_no_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "irnet_hpc/train/provenance.py"))
    assert provenance.source_commit() is None


def test_versions_are_those_of_installed_packages():
    versions = provenance.package_versions()
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert set(versions) <= set(provenance.PACKAGES)
