"""The pages at the server's address: the same ones, under a strict policy, with the learner's states."""

import re

import pytest

pytest.importorskip("starlette")

from starlette.testclient import TestClient

from techtree.learn import workspace
from techtree.serve.app import create_app, create_pages_app
from techtree.serve.pages import Pages
from techtree.site.pages import Site
from techtree.tree.graph import load_tree

BASE = "http://127.0.0.1:8012"
TREE = load_tree()


@pytest.fixture(scope="module")
def pages():
    return Pages(TREE, lambda: None)


@pytest.fixture
def browser(engine, pages):
    with TestClient(create_app(engine, pages=pages), BASE, raise_server_exceptions=False) as client:
        yield client


def test_the_pages_are_those_of_the_site(browser):
    site = Site(TREE)
    for name in ("index.html", "tech/rope.html", "assets/site.css", "figures/rope.svg", "glossary.html"):
        assert browser.get(f"/{name}").content == site.render(name)
    assert browser.get("/").content == site.render("index.html")


def test_every_file_of_the_site_is_given(browser):
    site = Site(TREE)
    assert [name for name in site.paths() if browser.get(f"/{name}").status_code != 200] == []


def test_without_a_model_there_are_the_pages_and_who_wants_the_model_is_told(pages):
    client = TestClient(create_pages_app(pages), BASE, raise_server_exceptions=False)
    assert client.get("/").content == Site(TREE).render("index.html")
    assert client.get("/tech/rope.html").headers["content-security-policy"].startswith("default-src 'none'")
    asked = [client.post(path, json={}) for path in ("/infill", "/v1/completions", "/v1/chat/completions")]
    for answer in (*asked, client.get("/health"), client.get("/v1/models")):
        assert answer.status_code == 503
        error = answer.json()["error"]
        assert error["type"] == "unavailable_error"
        assert "techtree build" in error["message"]
    assert client.get("/", headers={"Host": "example.org"}).status_code == 403


def test_without_a_model_the_key_is_still_asked_for(pages):
    client = TestClient(create_pages_app(pages, api_key="k"), BASE, raise_server_exceptions=False)
    assert client.get("/tech/rope.html").status_code == 200
    assert client.post("/infill", json={}).status_code == 401
    assert client.post("/infill", json={}, headers={"Authorization": "Bearer k"}).status_code == 503


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tech/rope.html", "text/html; charset=utf-8"),
        ("assets/site.js", "text/javascript; charset=utf-8"),
        ("assets/site.css", "text/css; charset=utf-8"),
        ("figures/rope.svg", "image/svg+xml"),
        ("assets/fonts/stix-two-math.woff", "font/woff"),
    ],
)
def test_every_part_has_its_type_and_a_strict_policy(browser, name, kind):
    answer = browser.get(f"/{name}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"unsafe-eval|\*|https?:|data:", policy)
    assert ("unsafe-inline" in policy) == name.endswith(".svg")
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    ["/tech/nothing.html", "/techtree-site.json", "/../pyproject.toml", "/tech/", "/assets"],
)
def test_nothing_else_is_shown(browser, path):
    answer = browser.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "not_found_error"


def test_pages_are_only_read(browser):
    assert browser.post("/tech/rope.html").status_code == 404
    assert browser.head("/tech/rope.html").status_code == 200
    assert browser.get("/infill").status_code == 405


def test_pages_of_elsewhere_may_not_read_them(browser):
    assert browser.get("/", headers={"Origin": "https://example.org"}).status_code == 403
    assert browser.get("/", headers={"Host": "example.org"}).status_code == 403


def test_pages_need_no_key_since_a_browser_has_none(engine, pages):
    client = TestClient(create_app(engine, api_key="k", pages=pages), BASE, raise_server_exceptions=False)
    assert client.get("/tech/rope.html").status_code == 200
    assert client.get("/v1/models").status_code == 200
    assert client.post("/infill", json={"input_prefix": "a"}).status_code == 401
    assert client.get("/nothing").status_code == 401


def test_the_learners_states_are_those_of_now(engine, tmp_path):
    mine = workspace.create(tmp_path / "mine", TREE)
    pages = Pages(TREE, lambda: workspace.find(mine.folder, TREE))
    client = TestClient(create_app(engine, pages=pages), BASE, raise_server_exceptions=False)
    assert "0 of" in client.get("/").text
    assert 'class="state open"' in client.get("/tech/python_numpy.html").text
    first = TREE["python_numpy"]
    file = mine.write_stub(first)
    workspace.find(mine.folder, TREE).with_certificate(first)
    assert "1 of" in client.get("/").text
    assert 'class="state unlocked"' in client.get("/tech/python_numpy.html").text
    assert 'href="tech/numerics.html"' in client.get("/").text.partition("Open next")[2]
    file.write_text("changed")
    assert 'class="state stale"' in client.get("/tech/python_numpy.html").text
