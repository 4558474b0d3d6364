"""The figures to touch in a real Chromium: from the file system, at every width, by keyboard alone."""

import json
import os
import shutil
from pathlib import Path

import pytest

from techtree.site.touch import data as touch_data

playwright_api = pytest.importorskip("playwright.sync_api")
axe_api = pytest.importorskip("axe_playwright_python.sync_playwright")
CHROMIUM = os.environ.get("TECHTREE_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium"),
    # Playwright's own event loop leaves a socket for the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

FOLDER = Path(touch_data.__file__).parent
IDS = sorted(path.stem for path in FOLDER.glob("*.js") if path.stem != "touch")
PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src file:; style-src file:; font-src file:">
<title>A figure</title>
<link rel="stylesheet" href="{site}">
<link rel="stylesheet" href="{folder}/touch.css">
</head>
<body>
<main><h1>A lesson</h1><h2>A section</h2>
<section class="touch" id="touch" data-touch="{id}"></section>
<script type="application/json" id="touch-data">{data}</script>
</main>
<script src="{folder}/touch.js" defer></script>
<script src="{folder}/{id}.js" defer></script>
</body>
</html>
"""


@pytest.fixture(scope="module")
def chromium():
    with playwright_api.sync_playwright() as playwright:
        # A container without user namespaces runs as root, where Chromium wants this.
        arguments = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(params=IDS)
def file(request, tmp_path):
    """A page with one figure, on the file system."""
    site = (FOLDER.parent / "assets" / "site.css").as_uri()
    made = json.dumps(touch_data.data(request.param))
    page = tmp_path / f"{request.param}.html"
    page.write_text(
        PAGE.format(site=site, folder=FOLDER.as_uri(), id=request.param, data=made), encoding="utf-8"
    )
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_by_keyboard_alone_at_every_width(chromium, file, scheme):
    context = chromium.new_context(color_scheme=scheme, viewport={"width": 320, "height": 800})
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda said: problems.append(said.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(file.as_uri())
    told = page.locator(".touch-told")
    first = told.inner_text()
    assert page.locator(".touch-picture").get_attribute("aria-label") == first
    assert page.locator(".touch-rest").is_hidden(), "the question comes before the controls"

    page.keyboard.press("Tab")
    page.keyboard.type("1")
    page.keyboard.press("Enter")
    assert "You said 1; it is " in page.locator(".touch-answer").inner_text()
    assert page.locator(".touch-gap").is_visible()
    assert page.locator(".touch-question").is_hidden()
    before = told.inner_text()
    assert before != first, "the figure shows the answer"

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('.touch-rest') !== null")
    page.keyboard.press("ArrowLeft")
    after = told.inner_text()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert {after, told.inner_text()} != {before}, "a control changes what is drawn"
    names = page.locator(".touch-slider label").all_text_contents()
    assert len(names) == page.get_by_role("slider").count()
    for name in names:
        assert page.get_by_role("slider", name=name, exact=True).count() == 1

    for width in (320, 390, 1440):
        page.set_viewport_size({"width": width, "height": 800})
        page.wait_for_timeout(100)
        wide = page.evaluate(
            """() => document.documentElement.scrollWidth <= innerWidth ? [] :
                [...document.querySelectorAll('main *')]
                    .filter((e) => e.getBoundingClientRect().right > innerWidth)
                    .map((e) => `${e.tagName}.${e.getAttribute('class')}: ${e.textContent.slice(0, 40)}`)"""
        )
        assert wide == [], width
        outside = page.evaluate(
            """() => {
                const box = document.querySelector('.touch').getBoundingClientRect();
                return [...document.querySelectorAll('.touch svg *')].filter((e) => {
                    const own = e.getBoundingClientRect();
                    return own.left < box.left - 1 || own.right > box.right + 1;
                }).map((e) => `${e.tagName}: ${e.textContent}`);
            }"""
        )
        assert outside == [], width
    assert problems == []
    found = axe_api.Axe().run(page).response["violations"]
    assert [each["id"] for each in found if each["impact"] in ("serious", "critical")] == []
    context.close()


def test_who_does_not_want_to_guess_sees_it_at_once(chromium, file):
    page = chromium.new_page()
    page.goto(file.as_uri())
    page.get_by_role("button", name="Just show me").click()
    assert page.locator(".touch-answer").inner_text().startswith("It is ")
    assert page.locator(".touch-rest").is_visible()
    page.close()


def test_without_scripts_nothing_is_there(chromium, file):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.locator(".touch").is_hidden()
    context.close()
