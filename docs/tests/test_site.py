"""The built site in Debian's Chromium, from file:// and from http://.

    pytest docs/tests -n 2

Needs the site (tox run -e docs), chromium and chromedriver. What is missing fails.
"""

import contextlib
import functools
import hashlib
import http.server
import itertools
import json
import os
import subprocess
import threading
import tomllib
from pathlib import Path

import axe_playwright_python
import page_checks
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.keys import Keys

DOCS = Path(__file__).resolve().parents[1]
SITE = Path(os.environ.get("DLCOMPANION_SITE", DOCS / "_build" / "html"))
HANDFUL = 5
EVERYWHERE = ("*.html", "[!_]*/**/*.html", "_modules/**/*.html")
DRAWING = '<figure class="drawing'
AXE = Path(axe_playwright_python.__file__).parent / "axe.min.js"


def found(*patterns):
    return sorted(
        str(path.relative_to(SITE))
        for pattern in patterns
        for path in SITE.glob(pattern)
    )


def one_of_each(pages, *features):
    """The first page of every combination of features that occurs."""
    kinds = {}
    for page in pages:
        text = (SITE / page).read_text(encoding="utf-8")
        kinds.setdefault(tuple(word in text for word in features), page)
    return sorted(kinds.values())


def commit():
    git = ["git", "-C", str(DOCS), "rev-parse", "HEAD"]
    with contextlib.suppress(FileNotFoundError):
        return subprocess.run(git, capture_output=True, text=True).stdout
    return ""


def drawn(pages, count, salt):
    """A few pages, others at every commit."""
    return sorted(
        sorted(pages, key=lambda p: hashlib.sha256(f"{salt}{p}".encode()).digest())[
            :count
        ]
    )


SCRIPTS = found("gallery/*/plot_*.html")
API = one_of_each(
    found("api/generated/*.html"), "py class", "py method", "sphx-glr-thumb"
)
# A browser looks at the landing page and its siblings, at one page of each template,
# and at a handful that is drawn anew at every commit. What needs no browser is asked
# of every page, in test_pages.py.
PAGES = (
    [page for page in found("*.html") if page != "search.html"]
    + ["gallery/index.html"]
    + found("paths/*.html")[:1]
    + found("migrating/*.html")[:1]
    + found("api/*.html")[:1]
    + found("gallery/*/index.html")[:1]
    + one_of_each(SCRIPTS, "sphx-glr-script-out", "<video", DRAWING)
    + API
)
OTHERS = found("paths/*.html", "migrating/*.html", "api/**/*.html", "gallery/*/*.html")
PAGES += drawn(set(OTHERS) - set(PAGES), HANDFUL, commit())
SOURCE = found("_modules/dlcompanion/**/*.html")[:1]


@pytest.fixture(scope="session")
def server():
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=SITE)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture(scope="session")
def browser():
    options = Options()
    options.binary_location = os.environ.get("CHROMIUM", "/usr/bin/chromium")
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--force-prefers-reduced-motion",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):
        options.add_argument(argument)
    logs = {"browser": "ALL", "performance": "ALL"}
    options.set_capability("goog:loggingPrefs", logs)
    service = Service(os.environ.get("CHROMEDRIVER", "/usr/bin/chromedriver"))
    driver = webdriver.Chrome(options, service)
    driver.set_script_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture(params=["file", "http"])
def root(request):
    if request.param == "file":
        return SITE.as_uri()
    return request.getfixturevalue("server")


@contextlib.contextmanager
def screen(browser, width=1280, height=900, mobile=False, scheme="light"):
    metrics = {"width": width, "height": height, "mobile": mobile}
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {**metrics, "deviceScaleFactor": 1}
    )
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def visit(browser, url):
    """Open a page and wait for its formulas; earlier messages are thrown away."""
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(url)
    browser.execute_async_script(
        """const done = arguments[0];
        Promise.resolve(window.MathJax?.startup?.promise).then(() => done())"""
    )


def severe(browser):
    log = browser.get_log("browser")
    return [entry["message"] for entry in log if entry["level"] == "SEVERE"]


def requests(browser):
    """Addresses that the page asked for, outside the site."""
    urls = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            urls.append(message["params"]["request"]["url"])
    own = ("file:", "http://127.0.0.1:", "data:", "blob:", "chrome", "about:")
    return [url for url in urls if not url.startswith(own)]


def test_the_site_is_there():
    assert (SITE / "index.html").exists(), "build the site first: tox run -e docs"
    assert AXE.exists()
    assert SCRIPTS, "the site has no gallery page"
    assert len(API) >= 3, "no class and function pages in the API"
    assert SOURCE, "no page shows source code"


@pytest.mark.parametrize("page", [*PAGES, *SOURCE])
def test_page_is_whole(browser, root, page):
    with screen(browser):
        visit(browser, f"{root}/{page}")
        state = browser.execute_async_script(
            """const done = arguments[0];
            const images = [...document.images].map((image) => {
              image.loading = "eager";
              return image.decode().then(() => null, () => image.src);
            });
            const videos = [...document.querySelectorAll("video")].map((video) =>
              new Promise((resolve) => {
                const wrong = () => resolve(video.outerHTML);
                if (video.readyState) resolve(null);
                video.addEventListener("loadedmetadata", () => resolve(null));
                video.addEventListener("error", wrong, true);
                video.load();
                setTimeout(wrong, 10000);
              }));
            const formulas = [...document.querySelectorAll(".math")];
            Promise.all([...images, ...videos]).then((media) => done({
              broken: media.filter(Boolean),
              wrong: [...document.querySelectorAll("mjx-merror, [data-mjx-error]")]
                .map((e) => e.title || e.dataset.mjxError || e.textContent),
              raw: formulas.filter((e) => !e.querySelector("mjx-container"))
                .map((e) => e.textContent),
              headings: document.querySelectorAll("h1").length,
            }))"""
        )
    assert state == {"broken": [], "wrong": [], "raw": [], "headings": 1}
    assert severe(browser) == []
    assert requests(browser) == []


@pytest.mark.parametrize("page", PAGES)
def test_nothing_covers_the_title(browser, page):
    with screen(browser):
        visit(browser, f"{SITE.as_uri()}/{page}")
        covered = browser.execute_script(
            """const title = document.querySelector("h1");
            title.scrollIntoView({block: "center"});
            const box = title.getBoundingClientRect();
            const top = document.elementFromPoint(box.x + 8, box.y + box.height / 2);
            return title.contains(top) ? "" : `${top?.outerHTML.slice(0, 200)}`"""
        )
    assert not covered


@pytest.mark.parametrize("page", PAGES)
def test_nothing_scrolls_sideways_on_a_phone(browser, page):
    with screen(browser, 390, 844, mobile=True):
        visit(browser, f"{SITE.as_uri()}/{page}")
        over = browser.execute_script(
            """const wide = document.documentElement.scrollWidth - innerWidth;
            const inner = document.querySelector("main") ?? document.body;
            return Math.max(wide, inner.scrollWidth - inner.clientWidth)"""
        )
    assert over <= 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", PAGES)
def test_accessible(browser, page, scheme):
    with screen(browser, scheme=scheme):
        visit(browser, f"{SITE.as_uri()}/{page}")
        theme = browser.execute_script("return document.documentElement.dataset.theme")
        # a color that is still fading is no color to measure
        browser.execute_script(
            """const style = document.createElement("style");
            style.textContent = "* { transition: none !important }";
            document.head.append(style)"""
        )
        browser.execute_script(AXE.read_text())
        violations = browser.execute_async_script(
            """const done = arguments[0];
            axe.run(document, {resultTypes: ["violations"]}).then((result) => done(
              result.violations.map((v) =>
                [v.id, v.nodes.slice(0, 4).map((n) => n.target.join(" "))])))"""
        )
    assert theme == scheme
    assert violations == []


def test_every_formula_of_the_site_is_set(browser):
    """MathJax sets each formula once, wherever it stands."""
    pages = [page_checks.parse(SITE / page) for page in found(*EVERYWHERE)]
    formulas = sorted({formula for page in pages for formula in page_checks.tex(page)})
    assert formulas
    with screen(browser):
        visit(browser, f"{SITE.as_uri()}/notation.html")
        wrong = []
        for start in range(0, len(formulas), 200):
            wrong += browser.execute_async_script(
                """const [formulas, done] = arguments;
                (async () => {
                  const wrong = [];
                  for (const [tex, display] of formulas) {
                    MathJax.texReset();
                    const set = await MathJax.tex2chtmlPromise(tex, {display});
                    const error = set.querySelector("mjx-merror, [data-mjx-error]");
                    if (error) wrong.push([tex, error.title || error.textContent]);
                  }
                  return wrong;
                })().then(done, (error) => done([String(error)]))""",
                formulas[start : start + 200],
            )
    assert wrong == []


def search(browser, root, query):
    """Addresses of what the search finds, and of what it offers if that is nothing."""
    visit(browser, f"{root}/search.html?q={query.replace(' ', '+')}")
    return browser.execute_async_script(
        """const done = arguments[0];
        const started = Date.now();
        const timer = setInterval(() => {
          const ready = document.querySelector("#search-results .search-summary");
          if (/matching|did not match/.test(ready?.textContent) ||
              Date.now() - started > 15000) {
            clearInterval(timer);
            const hrefs = (what) =>
              [...document.querySelectorAll(`#search-results ${what} a`)]
                .map((link) => link.href);
            done([hrefs("li"), hrefs("> p")]);
          }
        }, 50)"""
    )


@pytest.mark.parametrize("page", drawn(SCRIPTS, 1, commit()))
def test_search_finds_the_script(browser, root, page):
    with screen(browser):
        links, _ = search(browser, root, topic(page))
    assert any(page in link for link in links), links
    assert severe(browser) == []
    assert requests(browser) == []


@pytest.mark.parametrize(
    ("question", "page"),
    [
        ("my model is overconfident", "gallery/uncertainty/plot_calibration.html"),
        ("is a VAE sharp", "gallery/generative/plot_variational_autoencoder.html"),
        ("which optimizer", "gallery/optimization/plot_"),
        ("save and load", "start.html"),
        ("notebook", "start.html"),
        ("mixed precision", "glossary.html#term-mixed-precision"),
    ],
)
def test_a_question_in_words_finds_its_page_first(browser, root, question, page):
    with screen(browser):
        links, _ = search(browser, root, question)
    assert page in links[0]


@pytest.mark.parametrize(
    ("query", "offered"),
    [
        ("catpole", ["cartpole"]),
        ("lokahead", ["lookahead"]),
        ("varaitional inference", ["variational%20inference"]),
        ("xyzzyx qwwwq", []),
        ("lookahead minimax glossary", ["lookahead", "minimax", "glossary"]),
    ],
)
def test_a_search_that_finds_nothing_offers_words(browser, root, query, offered):
    with screen(browser):
        links, offers = search(browser, root, query)
    assert links == []
    assert [offer.partition("?q=")[2] for offer in offers] == offered


def topic(page):
    return Path(page).stem.removeprefix("plot_").replace("_", " ")


def names(page):
    """What people may type who look for the topic of a page."""
    slug, chapter = topic(page).replace(" ", "_"), Path(page).parent.name
    catalogue = DOCS.parent / "dlcompanion" / "topics" / f"{chapter}.toml"
    rows = tomllib.loads(catalogue.read_text(encoding="utf-8"))["topic"]
    (row,) = (row for row in rows if row["slug"] == slug)
    outside, _, inside = row["title"].partition(" (")
    found = [outside, inside.rstrip(")"), topic(page), *row.get("names", ())]
    return [name for name in found if name]


def test_the_search_finds_the_page_of_a_topic_first_by_all_its_names(browser, root):
    wanted = {name: page for page in SCRIPTS for name in names(page)}
    with screen(browser):
        visit(browser, f"{root}/search.html?q=nothing")
        first = browser.execute_async_script(
            """const [names, done] = arguments;
            const first = (name) =>  // the list is shown from its end
              Search._performSearch(...Search._parseQuery(name)).at(-1)?.[0];
            const timer = setInterval(() => {
              if (!Search._index) return;
              clearInterval(timer);
              done(names.map((name) => `${first(name)}.html`));
            }, 50)""",
            list(wanted),
        )
    found = dict(zip(wanted, first, strict=True))
    assert {n: (found[n], p) for n, p in wanted.items() if found[n] != p} == {}


def test_the_search_field_of_the_front_page_leads_to_the_results(browser, root):
    with screen(browser):
        visit(browser, f"{root}/index.html")
        browser.execute_script(
            """const form = document.querySelector("form.search-box");
            form.querySelector("input").value = "gradient";
            form.requestSubmit()"""
        )
        browser.execute_async_script(
            """const done = arguments[0];
            setTimeout(() => done(), 1000)"""
        )
        assert "search.html?q=gradient" in browser.current_url


def test_the_topic_map_can_be_filtered(browser):
    with screen(browser):
        visit(browser, f"{SITE.as_uri()}/topics.html")
        count = """return [...document.querySelectorAll("ul.topic-map > li")]
            .filter((item) => item.offsetParent).length"""
        written = browser.execute_script(count)
        browser.find_element("css selector", "label.switch input").click()
        everything = browser.execute_script(count)
        field = browser.find_element("css selector", "input.filter")
        field.send_keys("lookahead")
        some = browser.execute_script(count)
        field.send_keys(" xyzzy")
        nothing = browser.execute_script(count)
    done = page_checks.parse(SITE / "topics.html").find_class("is-written")
    assert written == len(done) > 0
    assert everything > 100
    assert 1 <= some < 20
    assert nothing == 0


def test_the_install_line_has_a_copy_button(browser):
    with screen(browser):
        visit(browser, f"{SITE.as_uri()}/index.html")
        button = browser.find_element("css selector", ".hero button.copybtn")
        assert button.is_displayed()


def test_code_has_a_copy_button_where_nothing_hovers(browser):
    with screen(browser, 390, 844, mobile=True):
        touch = "Emulation.setTouchEmulationEnabled"
        browser.execute_cdp_cmd(touch, {"enabled": True, "maxTouchPoints": 1})
        visit(browser, f"{SITE.as_uri()}/{SCRIPTS[0]}")
        button = browser.find_element(
            "css selector", "#in-your-own-model button.copybtn"
        )
        seen = button.value_of_css_property("opacity")
        browser.execute_cdp_cmd(touch, {"enabled": False})
    assert float(seen) == 1


def with_figures(feature, count):
    """Pages of scripts that contain a feature."""
    pages = (p for p in SCRIPTS if feature in (SITE / p).read_text(encoding="utf-8"))
    return list(itertools.islice(pages, count))


OPENED = "return document.querySelector('dialog.figure').open"


@pytest.mark.parametrize(
    "page", with_figures("sphx-glr-single-img", 1) + with_figures(DRAWING, 1)
)
def test_a_figure_is_enlarged_by_keyboard_and_by_click(browser, page):
    with screen(browser):
        visit(browser, f"{SITE.as_uri()}/{page}")
        button = browser.find_element("css selector", "div.enlarge button")
        picture = button.find_element("css selector", "img")
        for opens in (lambda: button.send_keys(Keys.ENTER), button.click):
            opens()
            assert browser.execute_script(OPENED)
            shown = browser.find_element("css selector", "dialog.figure img")
            assert shown.get_attribute("src") == picture.get_attribute("src")
            assert shown.get_attribute("alt") == picture.get_attribute("alt")
            assert shown.size["width"] > picture.size["width"]
            browser.switch_to.active_element.send_keys(Keys.ESCAPE)
            assert not browser.execute_script(OPENED)
            assert browser.switch_to.active_element == button
        button.click()
        browser.find_element("css selector", "dialog.figure img").click()
        assert not browser.execute_script(OPENED)


@pytest.mark.parametrize("page", with_figures("sphx-glr-single-img", 3))
def test_a_wide_figure_can_be_read_on_a_phone(browser, page):
    with screen(browser, 390, 844, mobile=True):
        visit(browser, f"{SITE.as_uri()}/{page}")
        sizes = browser.execute_script(
            """const images = [...document.querySelectorAll("div.enlarge img")];
            images.forEach((image) => (image.loading = "eager"));
            return images.map((i) => [i.clientWidth, i.naturalWidth])"""
        )
        over = browser.execute_script(
            "return document.documentElement.scrollWidth - innerWidth"
        )
    assert sizes and all(width >= 0.6 * natural for width, natural in sizes)
    assert over <= 0


@pytest.mark.parametrize("page", with_figures("<video", 1))
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_film_is_dimmed_in_the_dark(browser, page, scheme):
    with screen(browser, scheme=scheme):
        visit(browser, f"{SITE.as_uri()}/{page}")
        film, figure = browser.execute_script(
            """return ["video", "img.sphx-glr-single-img"].map((one) =>
              getComputedStyle(document.querySelector(one)).filter)"""
        )
    assert film == figure
    assert (film == "none") == (scheme == "light")


@pytest.mark.parametrize("page", with_figures("<video", 3))
def test_a_film_plays_in_its_place_on_a_phone(browser, page):
    with screen(browser, 390, 844, mobile=True):
        visit(browser, f"{SITE.as_uri()}/{page}")
        film = browser.execute_async_script(
            """const done = arguments[0];
            const film = document.querySelector("video");
            film.scrollIntoView();
            film.addEventListener("timeupdate", () => film.currentTime > 0 && done({
              width: film.clientWidth,
              shape: film.clientWidth / film.clientHeight,
              frame: film.videoWidth / film.videoHeight,
              inline: film.playsInline,
              silent: film.muted,
              name: film.getAttribute("aria-label"),
            }))"""
        )
    assert 300 <= film["width"] <= 390
    assert film["shape"] == pytest.approx(film["frame"], rel=0.02)
    assert film["inline"] and film["silent"]
    assert len(film["name"]) >= 20
