"""The page for people in headless Chromium: what is shown is what the service says, and nothing in data is ever run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from conrec.filtering.stores.base import StoreUnavailableError
from tests.filtering.conftest import build_circle_run
from tests.filtering.serving.chromium import Browser, Page, chromium
from tests.filtering.serving.page_world import HOSTILE, TITLES, Site, add_calibration, add_data, serving

pytest.importorskip("uvicorn", reason="the service needs the extra 'serve'")
PROGRAM = chromium()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on PATH: the page is tested in one")

LISTED = "document.querySelectorAll('#candidates .card').length === {count}"
ALL = LISTED.format(count=len(TITLES))
TITLES_OF = "[...document.querySelectorAll('#candidates .card{kind}')].map(e => e.querySelector('.title').textContent)"
SHOWN = {one: title or one for one, title in TITLES.items()}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One Chromium for all tests here."""
    assert PROGRAM is not None
    with Browser(PROGRAM, tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The service over a run with everything."""
    run = build_circle_run(tmp_path_factory.mktemp("site") / "run", 0.9)
    add_data(run)
    add_calibration(run)
    with serving(run) as started:
        yield started


def dropped_of(page: Page) -> set[str]:
    """Titles that are marked as dropped; every card says one of both."""
    words: list[str] = page.value("[...document.querySelectorAll('#candidates .card .pill')].map(e => e.textContent)")
    gone = set(page.value(TITLES_OF.format(kind=".gone")))
    assert sorted(words) == ["Dropped"] * len(gone) + ["Kept"] * (len(words) - len(gone))
    return gone


def titles(items: set[str]) -> set[str]:
    return {SHOWN[one] for one in items}


def is_clean(page: Page, site: Site) -> None:
    """No error of the console, no script but ours, and nothing was asked of anyone else."""
    assert page.value("document.title") != "broken"
    assert page.console() == []
    asked = {urlsplit(one).netloc for one in page.requests() if not one.startswith(("blob:", "about:"))}
    assert asked == {urlsplit(site.address).netloc}


def test_a_user_is_chosen_with_the_keyboard_and_the_marks_are_the_filters(browser: Browser, site: Site) -> None:
    page = browser.page()
    page.go(f"{site.address}/", "document.querySelectorAll('.some button').length === 1")
    page.value("document.getElementById('user').focus()")
    page.type("AN")
    page.wait("document.querySelectorAll('#users [role=option]').length === 2")
    assert page.texts("#users .id") == ["ann", "Annika"]
    assert page.texts("#users .small") == ["2 disliked, 1 liked", "0 disliked, 1 liked"]
    page.press("ArrowDown")
    assert page.value("document.activeElement.getAttribute('aria-activedescendant')") == "user-0"
    page.press("Enter")
    page.wait(ALL)
    assert page.value("location.hash") == "#user=ann"
    assert dropped_of(page) == titles(site.dropped("ann", list(TITLES))) == titles({"i0", "i1"})
    assert [page.text(f"#{one}") for one in ("dropped-count", "kept-count", "dropped-share")] == ["2", "4", "33.3%"]
    assert page.text("#false-rate") == "5.0%"
    assert page.texts("#set .title") == [SHOWN["i0"]]
    assert page.text("#set .badge") == "drops 2 here"
    assert page.texts("#disliked .title") == [SHOWN["i2"], SHOWN["i1"]]
    assert page.texts("#liked .title") == [SHOWN["i3"]]
    assert page.value(TITLES_OF.format(kind=""))[:3] == [SHOWN["i0"], SHOWN["i1"], SHOWN["i2"]]  # nearest first
    is_clean(page, site)


def test_each_candidate_says_why(browser: Browser, site: Site) -> None:
    page = browser.page()
    page.go(f"{site.address}/#user=ann", ALL)
    explained = site.ask("/v1/explain", {"user_id": "ann", "item_ids": ["i0"]})["candidates"][0]
    assert explained["past_dislikes"][0]["item_id"] == "i1"
    first = "#candidates .card:first-child"
    why = page.text(f"{first} .why")
    assert why.startswith(f"Too close to {SHOWN['i0']}, no. 1 of the predict set – 1.000 is above 0.900")
    assert f"disliked before: {HOSTILE} (0.985)" in why
    assert page.text(f"{first} .badge") == "disliked in the days after"
    assert not page.value(f"document.querySelector('{first} details').open")
    page.value(f"document.querySelector('{first} summary').focus()")
    page.press("Enter")
    assert page.wait(f"document.querySelector('{first} details').open")
    details = page.text(f"{first} details")
    assert explained["predicted"]["sid"] in details
    assert all(
        f"{SHOWN[one['item_id']]} {one['similarity']:.3f}, disliked" in details for one in explained["past_dislikes"]
    )
    is_clean(page, site)


def test_the_slider_marks_at_once_as_the_service_would(browser: Browser, site: Site) -> None:
    page = browser.page()
    page.go(f"{site.address}/#user=ann", ALL)
    page.value("document.getElementById('threshold').focus()")
    page.press("Home")  # the lowest threshold of the slider
    assert page.value("Number(document.getElementById('threshold').value)") == 0
    assert dropped_of(page) == titles({"i0", "i1", "i2", "i3"})
    page.wait("location.hash.includes('threshold=0')")
    assert page.text("#false-rate") == "40.0%"
    assert page.text("#caught-rate") == "90.0%"
    for value in (0.25, 0.5, 0.866, 0.985, 1.0):
        at_once = page.value(
            f"(() => {{ const slider = document.getElementById('threshold'); slider.value = {value};"
            " slider.dispatchEvent(new Event('input')); slider.dispatchEvent(new Event('change'));"
            f" return {TITLES_OF.format(kind='.gone')}; }})()"  # before any answer can have come
        )
        assert set(at_once) == titles(site.dropped("ann", list(TITLES), value)), value
    page.press("ArrowLeft")
    assert page.value("Number(document.getElementById('threshold').value)") == pytest.approx(0.999)
    page.click("#calibrated")
    page.wait("!location.hash.includes('threshold')")
    assert dropped_of(page) == titles({"i0", "i1"})
    assert page.text("#threshold-value") == "0.900"
    is_clean(page, site)


def test_the_address_carries_the_state(browser: Browser, site: Site) -> None:
    page = browser.page()
    page.go(f"{site.address}/#user=bob&threshold=0.95&candidates=pasted&item=i4&item=nowhere", LISTED.format(count=2))
    assert page.value("document.getElementById('user').value") == "bob"
    assert page.text("#threshold-value") == "0.950"
    assert dropped_of(page) == {"i4"}
    assert "does not know this item" in page.text("#candidates")
    page.value("location.hash = 'user=ann'")
    page.wait(ALL)
    assert page.text("#threshold-value") == "0.900"
    page.value("history.back()")
    page.wait(LISTED.format(count=2))
    page.value("location.hash = 'user=ann&threshold=nonsense&candidates=nonsense&other=1'")
    page.wait(ALL)  # what says nothing is as if it were not there
    assert page.text("#threshold-value") == "0.900"
    is_clean(page, site)


def test_hostile_titles_and_ids_are_text(browser: Browser, site: Site) -> None:
    page = browser.page()
    page.go(f"{site.address}/#user={quote(HOSTILE)}", "document.querySelector('#person').checkVisibility()")
    assert "the filter keeps everything" in page.text("#person")
    page.wait("document.querySelectorAll('.card').length > 0")
    assert page.value("document.getElementById('user').value") == HOSTILE
    page.value("location.hash = 'user=ann'")
    page.wait(ALL)
    assert SHOWN["i1"] == HOSTILE
    assert HOSTILE in page.value(TITLES_OF.format(kind=""))
    assert page.value("document.querySelectorAll('main script, main [onerror], main img[src=x]').length") == 0
    # The policy would have refused it, too: no inline script, no markup from text.
    page.value("document.body.append(Object.assign(document.createElement('script'), {type: 'x'}))")
    assert "TrustedHTML" in page.value(
        "(() => { try { document.body.innerHTML = '<b>'; return '' } catch (e) { return String(e) } })()"
    )
    policy = site.raw("/")[1]["content-security-policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'")


def test_lists_pasted_searched_and_popular(browser: Browser, site: Site) -> None:
    page = browser.page()
    page.go(f"{site.address}/#user=ann", ALL)
    page.click("[data-source=search]")
    page.type("night")
    page.press("Enter")
    page.wait(LISTED.format(count=2))
    assert set(page.value(TITLES_OF.format(kind=""))) == titles({"i2", "i3"})
    page.click("[data-source=pasted]")
    page.type("i0\n  i4 \n\ni0\n")
    page.click("#paste-form button")
    page.wait(f"{LISTED.format(count=2)} && document.querySelector('.card').textContent.includes('Alpha')")
    assert page.text("#candidates-status") == "2 pasted IDs"
    assert "item=i0&item=i4" in page.value("location.hash")
    page.click("[data-source=popular]")
    page.wait("document.getElementById('candidates-status').textContent.startsWith('What the last days')")
    page.wait(LISTED.format(count=3))
    assert set(page.value(TITLES_OF.format(kind=""))) == titles({"i0", "i4", "7"})  # without what ann has rated
    page.value("document.getElementById('show').value = 'dropped'")
    page.value("document.getElementById('show').dispatchEvent(new Event('change'))")
    assert page.texts("#candidates .title") == [SHOWN["i0"]]
    is_clean(page, site)


def test_unknown_users_keep_everything(browser: Browser, site: Site) -> None:
    page = browser.page()
    page.go(f"{site.address}/", "document.querySelector('.some') !== null")
    page.click("#user")
    page.type("nobody")
    page.wait("document.getElementById('users-status').textContent.startsWith('No user')")
    page.press("Enter")
    page.wait("document.querySelectorAll('.card').length > 0")
    assert "no predict set, so the filter keeps everything" in page.text("#person")
    assert "no event of this user" in page.text("#past-status")
    assert dropped_of(page) == set()
    assert "there is no predict set for this user" in page.text(".card .why")
    page.go(f"{site.address}/#user=empty")
    page.value("location.reload()")
    page.wait("document.getElementById('set-status').textContent.startsWith('It is empty')")
    is_clean(page, site)


def test_pictures_are_files_that_the_item_table_names(browser: Browser, site: Site) -> None:
    page = browser.page(1400, 1600)
    page.go(f"{site.address}/#user=ann", ALL)
    page.wait("document.querySelector('#candidates .card:first-child img')?.naturalWidth === 1")
    pictures = page.value(
        "[...document.querySelectorAll('#candidates .pic')].map(e => [e.textContent, e.children.length])"
    )
    assert pictures[0] == ["A", 1]  # The Alpha (1990): its initial below the picture
    assert sum(children for _, children in pictures) == 1
    asked = [one for one in page.requests() if "/picture" in one]
    assert all("item_id=i0" in one or "item_id=i2" in one for one in asked)  # no address, no missing file


def test_the_token_is_asked_for_and_kept_in_the_tab(
    browser: Browser, circle_run: Callable[[float | None], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = circle_run(0.9)
    add_data(run)
    add_calibration(run)
    monkeypatch.setenv("CONREC_TOKEN", "a-token-for-this-test")
    with serving(run) as site:
        page = browser.page()
        page.go(f"{site.address}/#user=ann", "document.activeElement.id === 'token'")
        assert not page.value("document.getElementById('main').checkVisibility()")
        page.type("a-token-that-is-wrong")
        page.press("Enter")
        page.wait("document.getElementById('token-text').textContent.includes('did not accept')")
        page.type("a-token-for-this-test")
        page.press("Enter")
        page.wait(ALL)
        page.wait("document.querySelector('#candidates img')?.src.startsWith('blob:')")
        assert page.value("Object.values(sessionStorage)") == ["a-token-for-this-test"]
        assert page.value("localStorage.length") == 0
        page.value("location.reload()")
        page.wait(f"performance.now() < 20000 && {ALL}")
        assert all("a-token" not in one for one in page.requests())


def test_a_service_that_stops_is_said_and_comes_back(
    browser: Browser, circle_run: Callable[[float | None], Path]
) -> None:
    run = circle_run(0.9)
    add_data(run)
    page = browser.page()
    with serving(run) as site:
        page.go(f"{site.address}/#user=ann", ALL)
        port = urlsplit(site.address).port
    page.click("[data-source=popular]")
    page.wait("document.getElementById('notice').checkVisibility()")
    assert "does not answer" in page.text("#notice")
    assert port is not None
    with serving(run, port):
        page.click("#notice-retry")
        page.wait("!document.getElementById('notice').checkVisibility()")
        page.wait(LISTED.format(count=3))


def test_the_filter_alone_gives_a_page(browser: Browser, circle_run: Callable[[float | None], Path]) -> None:
    with serving(circle_run(None)) as site:
        page = browser.page()
        page.go(f"{site.address}/", "document.querySelectorAll('.some button').length > 3")
        assert set(page.texts(".some .id")) >= {"ann", "bob", "42"}
        page.value("location.hash = 'user=ann'")
        page.wait(ALL)  # some items of the catalogue
        assert dropped_of(page) == set()
        assert "nothing is dropped" in page.text("#threshold-note")
        assert "no log" in page.text("#past-status")
        assert set(page.value(TITLES_OF.format(kind=""))) == set(TITLES)  # IDs where there are no titles
        page.value("document.getElementById('threshold').focus()")
        page.press("Home")
        assert dropped_of(page) == site.dropped("ann", list(TITLES), page.value("Number(threshold.value)"))
        is_clean(page, site)


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_by_day_and_night(browser: Browser, site: Site, dark: bool) -> None:
    page = browser.page(360, 700, dark=dark)
    page.go(f"{site.address}/#user=ann", ALL)
    assert page.value("document.documentElement.scrollWidth") == 360
    light = page.value("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every(one => one > 128)")
    assert light is not dark
    small = "[...document.querySelectorAll('button, select, input, summary')].filter(e => e.checkVisibility())"
    heights = page.value(f"{small}.map(e => [e.id || e.textContent, e.getBoundingClientRect().height])")
    assert [one for one in heights if one[1] < 24] == []  # WCAG 2.2, target size
    assert page.value(f"{small}.filter(e => !(e.textContent || e.labels?.length)).map(e => e.id)") == []  # all named
    is_clean(page, site)


def test_all_is_reached_with_the_tab_key(browser: Browser, site: Site) -> None:
    page = browser.page()
    page.go(f"{site.address}/#user=ann", ALL)
    reached = []
    for _ in range(40):
        page.press("Tab")
        reached.append(page.value("document.activeElement.id || document.activeElement.tagName"))
    wanted = ["skip", "user", "random", "SUMMARY", "threshold", "show", "order"]
    assert [one for one in reached if one in wanted][: len(wanted)] == wanted
    page.value("document.getElementById('skip').focus()")
    page.press("Enter")
    assert page.value("document.activeElement.id") == "candidates-title"
    assert page.value("location.hash") == "#user=ann"
    is_clean(page, site)


def test_a_store_that_cannot_be_reached_keeps_everything_and_says_so(
    browser: Browser, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise StoreUnavailableError("the store does not answer")

    store = type(site.service.live.current.filter.store)
    for name in ("get", "get_many"):
        monkeypatch.setattr(store, name, gone)
    page = browser.page()
    page.go(f"{site.address}/#user=ann", ALL)
    assert dropped_of(page) == set()
    assert "the store cannot be reached now" in page.text("#candidates .why")
    assert "cannot be reached" in page.text("#notice")
    assert page.texts("#disliked .title") == [SHOWN["i2"], SHOWN["i1"]]


def test_a_floor_keeps_what_the_slider_alone_would_drop(
    browser: Browser, circle_run: Callable[[float | None], Path]
) -> None:
    run = circle_run(0.9)
    add_data(run)
    (run / "config.toml").write_text("[filter]\nkeep_at_least = 5\n")
    with serving(run) as site:
        page = browser.page()
        page.go(f"{site.address}/#user=ann", ALL)
        assert dropped_of(page) == titles(site.dropped("ann", list(TITLES))) == titles({"i0"})
        assert "kept: too few would remain" in page.text("#candidates .card:nth-child(2) .why")
        assert "at least 5 candidates are kept" in page.text("#threshold-note")
        page.value("document.getElementById('threshold').focus()")
        page.press("Home")
        page.wait("document.querySelectorAll('#candidates .card.gone').length === 1")  # as the service says
        assert dropped_of(page) == titles({"i0"})
        is_clean(page, site)
