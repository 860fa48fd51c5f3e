"""The names of OPTIMADE's sources, and the addresses of providers."""

import json
from pathlib import Path

import pytest

from irnet_hpc.data.download import http
from irnet_hpc.data.download.optimade import providers
from irnet_hpc.data.download.optimade.query import Query, read_query, with_filter
from irnet_hpc.data.download.probe import probe_source
from irnet_hpc.data.resolve import resolve_source
from irnet_hpc.errors import UserError
from irnet_hpc.pack import cli
from irnet_hpc.sweep.matrix.packs import PackDefaults, read_packs
from tests.data.http_server import Answer


def link(id_: str, base_url: object, kind: str) -> dict:
    attributes = {"name": id_, "base_url": base_url, "link_type": kind}
    return {"id": id_, "type": "links", "attributes": attributes}


@pytest.fixture
def listed(serve, monkeypatch):
    """Serve a list of providers, and their indexes."""

    def answer(path: str, headers: dict[str, str]) -> Answer:
        here = f"http://{headers['Host']}"
        links = {
            "/v1/links": [
                link("one", f"{here}/one", "external"),
                link("two", {"href": f"{here}/two/"}, "external"),
                link("none", None, "external"),
                link("empty", f"{here}/empty", "external"),
                link("broken", f"{here}/broken", "external"),
                link("local", f"{here}/local", "external"),
            ],
            "/one/v1/links": [
                link("index", f"{here}/one", "root"),
                link("main", f"{here}/one/main/", "child"),
                link("planned", None, "child"),
            ],
            "/two/v1/links": [link(name, f"{here}/{name}", "child") for name in ("a", "b")],
            "/empty/v1/links": [],
            "/local/v1/links": [link("main", "file:///etc", "child")],
        }
        if path == "/broken/v1/links":
            return Answer(b"<html>gone</html>", 404)
        return Answer(json.dumps({"data": links[path]}).encode())

    server = serve(answer)
    monkeypatch.setattr(providers, "PROVIDERS", f"{server.url}/v1/links")
    return server


def base_of(place: str) -> str:
    with http.connect() as connection:
        return providers.base_address(connection, Query(place, ""))


def test_a_provider_is_found_through_its_index(listed):
    assert base_of("one") == base_of("one/main") == f"{listed.url}/one/main"
    assert base_of("two/b") == f"{listed.url}/b"
    assert base_of("https://example.org") == "https://example.org"


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("two", "several databases; choose one of optimade:two/a, optimade:two/b"),
        ("two/c", "unknown database of two 'c'.*known: a, b"),
        ("onne", r"unknown provider of OPTIMADE 'onne' \(did you mean 'one'\?\)"),
        ("none", "has no index"),
        ("empty", "lists no database"),
        ("broken", "404"),
        ("local", "must be http:// or https://"),
    ],
)
def test_a_provider_that_is_not_found_is_one_sentence(listed, place, says):
    with pytest.raises(UserError, match=says):
        base_of(place)


def test_without_the_list_the_sentence_names_the_form_with_an_address(monkeypatch):
    monkeypatch.setattr(providers, "PROVIDERS", "http://127.0.0.1:1/v1/links")
    monkeypatch.setenv("IRNET_BACKOFF_S", "0.01")
    monkeypatch.setenv("IRNET_OFFLINE", "")
    with pytest.raises(UserError, match=r"cannot be reached.*optimade:https://"):
        base_of("one")


@pytest.mark.parametrize(
    "text",
    [
        "optimade:",
        "optimade:OQMD",
        "optimade:a/b/c",
        "optimade:../x",
        "optimade:ftp://example.org",
        "optimade:https://name:word@example.org",
        "optimade:https://example.org/v1/structures?page_limit=1",
        "optimade:https://example.org/v1/structures",
    ],
)
def test_a_source_that_names_no_service_is_refused(text):
    with pytest.raises(UserError):
        read_query(text)


def test_names_of_tables_are_distinct_and_independent_of_spelling():
    texts = [
        "oqmd",
        "oqmd?filter=nelements=2",
        "oqmd?filter=nelements=3",
        "alexandria/alexandria-pbe",
        "https://example.org",
        "http://example.org",
        "https://example.org/a_b",
        "https://example.org/a/b",
    ]
    names = [read_query(f"optimade:{text}").name for text in texts]
    assert len(set(names)) == len(names)
    assert names[0] == "optimade-oqmd"
    same = ["https://example.org/", "https://example.org/v1", "https://example.org/v1.2/"]
    assert {read_query(f"optimade:{text}").name for text in same} == {names[4]}


def test_a_filter_belongs_to_the_source():
    text = with_filter("optimade:oqmd", 'elements HAS "Si"')
    assert read_query(text) == Query("oqmd", 'elements HAS "Si"')
    assert resolve_source(text, Path()).identity == 'optimade:oqmd?filter=elements HAS "Si"'
    for source, filter_ in (("oqmd", "nelements=2"), (text, "nelements=2"), ("optimade:a", " ")):
        with pytest.raises(UserError):
            with_filter(source, filter_)
    with pytest.raises(UserError, match="--filter can be used only with --source"):
        cli.main(["--info", "mine", "--filter", "nelements=2"])


def test_a_matrix_states_such_a_pack_with_its_filter_and_names(tmp_path):
    source = "optimade:oqmd?filter=nelements=2"
    entry = {"name": "pairs", "source": source, "features": "structure"}
    entry |= {"rename": {"_oqmd_band_gap": "band_gap"}}
    (pack,) = read_packs(entry, PackDefaults(pack_dir=tmp_path))
    options = " ".join(pack.options)
    assert f"--source {source}" in options
    assert "--rename _oqmd_band_gap=band_gap" in options


def test_probing_such_a_service_is_refused_with_the_command_that_asks_it():
    with pytest.raises(UserError, match="pack --list says, got 'optimade:oqmd'"):
        probe_source("optimade:oqmd")


def test_other_ways_of_reading_are_refused_for_a_service():
    from irnet_hpc.data.reading import Reading

    with pytest.raises(UserError, match="drop can be stated for a table of your own"):
        resolve_source("optimade:oqmd", reading=Reading(drop=("a",), rename={"_a": "b"}))
