"""The pages in a real Chromium: no errors, no request to elsewhere, at every width, and by keyboard.

A run opens some pages; with ``-m slow`` it opens all of them.
"""

import os
import shutil
import threading

import pytest

playwright_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = os.environ.get("TECHTREE_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium"),
    # Playwright's own event loop leaves a socket for the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

WIDTHS = (320, 390, 1440)
SCHEMES = ("light", "dark")
SOME = (
    "index.html",
    "glossary.html",
    "era/transformer.html",
    "tech/rope.html",
    "tech/bpe.html",
    "tech/llama_block.html",
    "tech/fim.html",
    "product/lm.model.rope.py.html",
)


@pytest.fixture(scope="module", params=["some", pytest.param("all", marks=pytest.mark.slow)])
def names(request, folder) -> list[str]:
    """The pages to open."""
    if request.param == "some":
        return list(SOME)
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.html"))


@pytest.fixture(scope="module")
def chromium():
    with playwright_api.sync_playwright() as playwright:
        # A container without user namespaces runs as root, where Chromium wants this.
        arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


class Visit:
    """A page in a window of its own, and all that went wrong in it."""

    def __init__(self, chromium, base: str, **settings):
        self.context = chromium.new_context(**settings)
        self.base = base
        self.problems: list[str] = []
        self.page = self.context.new_page()
        self.page.on("console", lambda said: self.problems.append(f"console: {said.text}"))
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("requestfailed", self._failed)
        self.page.on("request", self._asked)
        self.page.on("response", self._answered)

    def _failed(self, request) -> None:
        # What is still under way when the next page is opened is given up.
        if request.failure != "net::ERR_ABORTED":
            self.problems.append(f"failed: {request.url} {request.failure}")

    def _asked(self, request) -> None:
        if not request.url.startswith(self.base):
            self.problems.append(f"elsewhere: {request.url}")

    def _answered(self, response) -> None:
        if response.status >= 400:
            self.problems.append(f"answered: {response.url} {response.status}")

    def open(self, name: str) -> None:
        self.page.goto(f"{self.base}/{name}", wait_until="load")

    def unfold(self) -> None:
        """Open whatever is folded away."""
        self.page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")

    def lost_pictures(self) -> list[str]:
        """Return the pictures that did not come."""
        return self.page.evaluate(
            "[...document.images].filter(each => !each.naturalWidth).map(each => each.src)"
        )

    def overflow(self) -> list[str]:
        """Return what makes the page wider than the window."""
        return self.page.evaluate(
            """() => {
                const wide = document.documentElement.scrollWidth > innerWidth;
                if (!wide) return [];
                return [...document.querySelectorAll('body *')]
                    .filter(e => e.getBoundingClientRect().right > innerWidth + 1)
                    .map(e => e.tagName + '.' + e.className).slice(0, 5).concat(['wide']);
            }"""
        )

    def close(self) -> None:
        self.context.close()


@pytest.fixture(scope="module")
def file_base(folder) -> str:
    return folder.resolve().as_uri()


def looks(visit: Visit):
    """Show the page that is open at every width, in the light and in the dark; yield each."""
    for scheme, widths in (("light", WIDTHS), ("dark", WIDTHS[::-1])):
        visit.page.emulate_media(color_scheme=scheme)
        for width in widths:
            visit.page.set_viewport_size({"width": width, "height": 900})
            yield width, scheme


def wrong_pages(chromium, base: str, names: list[str], scripts: bool) -> list:
    """Open pages, and return what is wrong with them, whether folded or unfolded, at any look."""
    visit = Visit(chromium, base, java_script_enabled=scripts)
    found = []
    for name in names:
        visit.open(name)
        wrong = [("lost", *visit.lost_pictures())] if visit.lost_pictures() else []
        for look in looks(visit):
            wrong += [(*look, *wide) for wide in [visit.overflow()] if wide]
            if look == (WIDTHS[-1], "light"):
                visit.unfold()
        wrong += [(problem,) for problem in visit.problems]
        visit.problems.clear()
        found += [(name, *each) for each in wrong]
    visit.close()
    return found


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_pages_from_the_file_system(chromium, file_base, names, scripts):
    assert wrong_pages(chromium, file_base, names, scripts) == []


def test_a_page_that_is_wrong_is_noticed(chromium, tmp_path):
    text = """<!doctype html><title>Wrong</title><img src="none.svg" alt=""><p>Text</p>
    <details><summary>More</summary><pre>{}</pre></details><script>oh()</script>"""
    (tmp_path / "wrong.html").write_text(text.format("wide " * 500), encoding="utf-8")
    found = wrong_pages(chromium, tmp_path.as_uri(), ["wrong.html"], True)
    told = [" ".join(map(str, each)) for each in found]
    for part in ("none.svg", "oh is not defined", "320 dark", "390 dark", "1440 dark"):
        assert any(part in each for each in told), part
    assert not any("light" in each for each in told), "what is too wide is folded away at first"


def test_the_search_from_the_file_system(chromium, file_base):
    visit = Visit(chromium, file_base, viewport={"width": 1440, "height": 900})
    visit.open("tech/rope.html")
    page = visit.page
    page.keyboard.press("/")
    page.keyboard.type("slow pai")
    page.wait_for_selector("#found li")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**/tech/*#*")
    assert not page.is_visible("#found")
    assert visit.problems == []
    page.keyboard.press("/")
    page.keyboard.type("wavelength")
    page.wait_for_selector("#found li")
    assert "Rotary positions" in page.inner_text("#found")
    page.fill("#search", "xylophone")
    page.wait_for_function("document.querySelector('#found-count').textContent === 'Nothing found'")
    page.keyboard.press("Escape")
    assert not page.is_visible("#found-count.none")
    visit.close()


def test_a_question_keeps_its_answer_until_it_was_tried(chromium, file_base):
    visit = Visit(chromium, file_base, viewport={"width": 390, "height": 800})
    visit.open("tech/rope.html")
    question = visit.page.locator("#question-1")
    answer = question.locator("details")
    assert not answer.is_visible()
    question.get_by_role("button", name="Compare").click()
    assert not answer.is_visible()
    question.locator("textarea").fill("They are not compared.")
    question.get_by_role("button", name="Compare").click()
    assert answer.is_visible()
    assert answer.locator("p").is_visible()
    question.get_by_role("button", name="Yes").click()
    assert "knew 1" in visit.page.inner_text("#tally")
    visit.page.reload()
    assert "You knew it" in question.inner_text()
    assert not answer.is_visible()
    visit.close()


def test_without_scripts_an_answer_unfolds(chromium, file_base):
    visit = Visit(chromium, file_base, java_script_enabled=False)
    visit.open("tech/rope.html")
    question = visit.page.locator("#question-1")
    assert not question.locator("details p").is_visible()
    question.locator("summary").click()
    assert question.locator("details p").is_visible()
    assert visit.page.locator("#search").count() == 0
    visit.close()


def test_links_and_controls_are_reached_by_keyboard(chromium, file_base):
    visit = Visit(chromium, file_base, viewport={"width": 1440, "height": 900})
    visit.open("index.html")
    page = visit.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(260):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.getAttribute('href') || document.activeElement.id"))
    assert {"tech/rope.html", "era/assistant.html", "glossary.html", "search"} <= reached
    visit.close()


def test_what_scrolls_is_reached_by_keyboard_and_nothing_else(chromium, file_base):
    for width in (320, 1440):
        visit = Visit(chromium, file_base, viewport={"width": width, "height": 900})
        visit.open("tech/rope.html")
        visit.page.locator("section[aria-labelledby=tests] summary").click()
        visit.page.wait_for_function(
            """() => [...document.querySelectorAll('pre, .formula, .wide, .frame')]
                .every(e => (e.scrollWidth > e.clientWidth) === (e.tabIndex === 0))"""
        )
        assert visit.page.locator("[tabindex='0']").count() > (5 if width == 320 else 0)
        visit.close()


def test_formulas_have_the_height_of_their_brackets(chromium, file_base):
    """Without the font a bracket around a fraction stays small."""
    visit = Visit(chromium, file_base, viewport={"width": 1440, "height": 900})
    visit.open("tech/rope.html")
    visit.page.evaluate("document.fonts.ready")
    heights = visit.page.evaluate(
        """() => [...document.querySelectorAll('.formula')].map(f => Math.max(...[...f.querySelectorAll('mo')]
            .filter(m => m.textContent === '(').map(m => m.getBoundingClientRect().height), 0))"""
    )
    assert visit.page.evaluate("[...document.fonts].some(f => f.status === 'loaded')")
    assert max(heights) > 32
    visit.close()


def test_axe_finds_nothing_serious(chromium, file_base, names):
    """At the widest and at 390 pixels; what is folded away is looked at with the rest."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    visit = Visit(chromium, file_base)
    found = []
    for name in names:
        visit.open(name)
        visit.unfold()
        for width, scheme in looks(visit):
            if width != 320:
                found += [
                    (name, width, scheme, each["id"], [node["target"] for node in each["nodes"][:3]])
                    for each in axe.run(visit.page).response["violations"]
                    if each["impact"] in ("serious", "critical")
                ]
    visit.close()
    assert found == []


@pytest.fixture(scope="module")
def served(tree):
    """The address of a server whose engine needs no model."""
    pytest.importorskip("uvicorn")
    from serve.loopback import FakeEngine
    from techtree.serve.app import create_app
    from techtree.serve.listening import Server, open_socket
    from techtree.serve.pages import Pages

    listener, address = open_socket("127.0.0.1", 0, None)
    stopping = threading.Event()
    server = Server(create_app(FakeEngine(), address, None, stopping, Pages(tree, lambda: None)), stopping)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield address.url
    server.should_exit = True
    thread.join(10)
    listener.close()


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_pages_from_the_server(chromium, served, names, scripts):
    """A violation of the policy is told on the console."""
    assert wrong_pages(chromium, served, names, scripts) == []


def test_a_lesson_from_the_server_is_searched_and_has_its_figure(chromium, served):
    visit = Visit(chromium, served, viewport={"width": 1440, "height": 900})
    visit.open("tech/rope.html")
    assert visit.lost_pictures() == []
    visit.page.fill("#search", "softmax")
    visit.page.wait_for_selector("#found li")
    assert visit.problems == []
    visit.close()
