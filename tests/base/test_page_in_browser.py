"""The page in a browser without a window: search, slider, values under the pointer, two widths, light and dark.

The tests are skipped where there is no Chromium with its driver, or no package ``selenium``.
"""

import shutil

import pytest
from test_page import NASTY, results, written

from minitx.base import page

pytestmark = [pytest.mark.slow, pytest.mark.drawn]  # test_page.py checks the same page without a browser
FLAGS = ("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
         "disable-component-update", "disable-sync", "disable-dev-shm-usage")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver", reason="the package selenium is not installed")
    paths = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in paths:
        pytest.skip("there is no chromium with its chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = paths[0]
    for flag in (*FLAGS, f"user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.chrome.service.Service(paths[1]))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    written(folder)
    return folder


@pytest.fixture
def opened(browser, folder):
    """The page, opened anew at 1200 pixels in light colours; afterwards, the browser has logged nothing."""
    look(browser)
    browser.get((folder / "index.html").as_uri())
    yield browser
    assert browser.get_log("browser") == []


def look(browser, width=1200, scheme="light"):
    """Make the window so wide, and let the reader's system be light or dark."""
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia",
                            {"features": [{"name": "prefers-color-scheme", "value": scheme}]})


def find(browser, selector):
    return browser.find_elements("css selector", selector)


def style(browser, selector, name):
    return browser.execute_script("return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]",
                                  selector, name)


def test_a_word_shows_its_associates_and_a_click_goes_on(opened):
    box, = find(opened, ".search input")
    box.clear()
    box.send_keys("fi")
    assert [one.text for one in find(opened, ".matches button")] == ["fish"]
    box.send_keys("sh")
    at = NASTY.index("fish")
    shown = [one.text for one in find(opened, ".associates button span")]
    assert shown == [NASTY[(at + k) % len(NASTY)] for k in (1, 2)] * 2
    keys = [one.get_attribute("data-key") for one in find(opened, ".associates data")]
    assert keys[:2] == [f"/nearest/bigram/scores/{at}/0", f"/nearest/bigram/scores/{at}/1"]
    find(opened, ".associates button")[0].click()
    assert box.get_property("value") == shown[0]
    assert find(opened, ".associates button span")[0].text == NASTY[(at + 2) % len(NASTY)]
    box.clear()
    box.send_keys("nosuchword")
    assert "not in this vocabulary" in find(opened, ".says")[0].text


def test_words_that_look_like_html_are_words(opened):
    assert not find(opened, "b, i, article script:not([type])")
    labels = [one.get_attribute("textContent") for one in find(opened, ".maps text")]
    assert {"</script>", "<b>bold</b>"} <= set(labels)
    assert opened.title == "A <title>"


def test_the_slider_moves_heat_maps_and_the_table(opened):
    slider, = find(opened, ".slider input")
    cells = "return [...document.querySelectorAll('.maps rect.cell')].map((one) => one.style.fill)"
    last = opened.execute_script(cells)
    assert find(opened, ".slider output")[0].text == "10"
    slider.send_keys("\ue012")  # arrow left
    assert find(opened, ".slider output")[0].text == "5"
    assert [one.get_attribute("data-step") for one in find(opened, "tr.now")] == ["5"]
    moved, n = opened.execute_script(cells), len(NASTY) ** 2
    assert moved[:n] != last[:n] and moved[n:] == last[n:]  # the second map is of no step
    find(opened, ".groups button")[1].click()
    assert [one.text for one in find(opened, ".pair h4")] == ["again"]


def test_a_cell_and_a_curve_show_their_value(opened):
    value = f"{results()['frames'][-1][0][0]:.4g}".replace("-", "−")
    for selector, says in ((".maps rect.cell", f"{NASTY[0]} → {NASTY[0]}\n{value}"),
                           (".whole svg", "a <b> & c\nat 1: 1")):
        node = find(opened, selector)[0]
        point = opened.execute_script("""
            arguments[0].scrollIntoView({block: "center", behavior: "instant"});
            const box = arguments[0].getBoundingClientRect(), drawing = arguments[0].closest(".drawing");
            if (!drawing) return [box.x + box.width / 2, box.y + box.height / 2];
            const [x, y] = JSON.parse(drawing.querySelector("script").textContent)[0].points[0];
            const at = new DOMPoint(x, y).matrixTransform(arguments[0].getScreenCTM());
            return [at.x, at.y];""", node)
        opened.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": point[0], "y": point[1]})
        assert says in find(opened, ".tip")[0].text


@pytest.mark.parametrize("width", [400, 1200])
def test_nothing_is_wider_than_the_window(opened, width):
    look(opened, width)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    assert (style(opened, ".crops", "display") == "none") == (width == 1200)
    size = opened.execute_script("return document.querySelector('.search input').getBoundingClientRect().width")
    assert 150 < size < width


def test_light_and_dark(opened):
    colours = {}
    for scheme in ("light", "dark"):
        look(opened, scheme=scheme)
        colours[scheme] = style(opened, "body", "backgroundColor"), style(opened, ".drawing svg", "fill")
    assert colours["light"] == ("rgb(255, 255, 255)", "rgb(27, 27, 27)")
    assert colours["dark"] == ("rgb(22, 24, 28)", "rgb(232, 232, 230)")


def test_steady_colours_have_one_scale_and_a_long_table_moves_in_its_frame(opened, tmp_path):
    """A cell is as strong as its value beside the largest of all steps; what is no number has no colour."""
    steps = list(range(40))
    frames = [[[k / 39, "NaN"], [-k / 78, 0.0]] for k in steps]
    found = page.Found({"words": ["a", "b"], "frames": frames, "steps": steps})
    maps = page.heat_maps({"W": [("trained", found["frames"])]}, found["words"], {"W": ("from", "to")}, "", steady=True)
    rows = page.table(["step"], [[step.shown("d")] for step in found["steps"]], steps=steps)
    page.write(tmp_path / page.FILE, "A title", [page.moved(steps, maps, rows, start=13)])
    opened.get((tmp_path / page.FILE).as_uri())
    alpha = "return [...document.querySelectorAll('.maps rect.cell')].map((one) => getComputedStyle(one).fill)"
    colours = [float(fill.rpartition(",")[2].strip(" )")) for fill in opened.execute_script(alpha)]
    assert colours == pytest.approx([1 / 3, 0, 1 / 6, 0], abs=0.01)  # the browser rounds
    assert not find(opened, ".groups")  # there is one map, and nothing to choose
    place = "return document.querySelector('.scroll').scrollTop"
    before = opened.execute_script(place)
    find(opened, ".slider input")[0].send_keys("\ue010")  # to the end
    assert opened.execute_script(place) > before
    box, row = (opened.execute_script(f"return document.querySelector('{one}').getBoundingClientRect()")
                for one in (".scroll", "tr.now"))
    assert box["top"] < row["top"] and row["bottom"] <= box["bottom"] + 1
