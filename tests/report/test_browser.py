"""The report in a real browser: it draws, answers, and lets nothing in or out."""

import base64
import json
import math
import os
import shutil
from dataclasses import replace

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from linprobe.evaluation.statistics import wilson_interval
from linprobe.report.page import write_report
from linprobe.report.style import DARK, LIGHT
from tests.support.records import (
    checkpoint_record,
    control_record,
    dataset_record,
    evaluation_record,
    probe_record,
    run_config,
    run_record,
    step_record,
)

pytestmark = pytest.mark.slow

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--window-size=1200,1000"),
)
EVIL = "<img src=x onerror=alert(1)>"
LONG = "encoder." + "block." * 11 + "output"
RATES = (0.3, 0.1, 0.2, 0.05)


def find_browser(which=shutil.which, environment=os.environ):
    """Paths of the browser and its driver; without them a failure in CI, elsewhere a skip."""
    found = which("chromium"), which("chromedriver")
    if all(found):
        return found
    reason = "needs Debian's chromium and chromium-driver, which .ci/run installs"
    if environment.get("CI"):
        pytest.fail(reason + "; with CI set the report may not go untested")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium, chromedriver = find_browser()
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    yield driver
    driver.quit()


def made_up_run():
    """Two checkpoints with everything that a record can hold."""
    names = ("input", EVIL, LONG, "logits")
    found = evaluation_record(optimum_error_interval=(0.04, 0.4))
    probes = [
        probe_record(i, name, rate, l2=10.0 ** -(i + 3), evaluation=found)
        for i, (name, rate) in enumerate(zip(names, RATES, strict=True))
    ]
    probes[2] = replace(probes[2], status="max_passes_reached", duality_gap=0.02, l2_at_edge=True)
    probes.append(probe_record(4, "lost", math.nan, "nonfinite_features", duality_gap=math.nan))
    steps = (step_record(0.01, to_layer=EVIL), step_record(0.9, from_layer=EVIL, to_layer=LONG))
    controls = tuple(
        control_record("shuffled_labels", layer, repeat=repeat)
        for layer in names
        for repeat in range(2)
    )
    first = checkpoint_record([], "start", 0, probes=tuple(probes))
    last = replace(first, name="end", step=2000, steps=steps, controls=controls)
    return run_record(
        first,
        last,
        config=run_config(skip_layer=EVIL),
        dataset=dataset_record(name=EVIL, classes=(EVIL, "cat")),
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return write_report(made_up_run(), tmp_path_factory.mktemp("run")).as_uri()


def open_page(browser, address, *, dark=False, width=1200, height=1000):
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    browser.get(address)


@pytest.fixture
def page(browser, report):
    """A freshly opened report, which must have made no noise when the test is over."""
    open_page(browser, report)
    yield browser
    assert complaints(browser) == []
    assert outside_requests(browser, report) == []


def complaints(browser):
    return [entry["message"] for entry in browser.get_log("browser")]


def outside_requests(browser, address):
    """Addresses that the page asked for beside its own file and what it holds itself."""
    asked = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            asked.append(message["params"]["request"]["url"])
    assert address in asked
    # What the browser's own first page still loads is not the report's.
    own = ("data:", "blob:", "chrome:")
    return [url for url in asked if url != address and not url.startswith(own)]


def texts(browser, selector):
    return [element.text for element in browser.find_elements(By.CSS_SELECTOR, selector)]


def one(browser, selector):
    return browser.find_element(By.CSS_SELECTOR, selector)


def drawn(browser, expression):
    """A value read from the curve's element `chart`."""
    return browser.execute_script(f"const chart = document.getElementById('chart');{expression}")


def curve(browser):
    return drawn(
        browser,
        "const found = chart.data.find((t) => t.meta === 'targets');"
        "return [found.x, found.y.map((y) => Math.round(1e4 * y) / 1e4)];",
    )


def position(browser, x, y):
    """Where a point of the curve is on the screen."""
    return drawn(
        browser,
        "const b = chart.getBoundingClientRect(), l = chart._fullLayout;"
        f"return [b.x + l.xaxis._offset + l.xaxis.d2p({x}), "
        f"b.y + l.yaxis._offset + l.yaxis.d2p({y})]",
    )


def test_a_missing_browser_is_skipped_at_home_and_fails_in_ci():
    with pytest.raises(pytest.skip.Exception, match="chromium-driver"):
        find_browser({"chromium": "/there"}.get, {})
    with pytest.raises(pytest.fail.Exception, match=r"\.ci/run installs; with CI set"):
        find_browser({"chromium": "/there"}.get, {"CI": "true"})


def test_the_checks_can_fail(browser, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text('<img src="http://127.0.0.1:1/x.png"><script>undefinedName()</script>')
    open_page(browser, bad.as_uri())
    WebDriverWait(browser, 120).until(lambda _: one(browser, "img").get_property("complete"))
    assert any("undefinedName" in text for text in complaints(browser))
    assert outside_requests(browser, bad.as_uri()) == ["http://127.0.0.1:1/x.png"]


def test_it_opens_and_draws_the_last_checkpoint(page):
    assert page.title == f"Linear probes: fig8, {EVIL}"
    assert curve(page) == [[0, 1, 2, 3], list(RATES)]
    assert len(page.find_elements(By.CSS_SELECTOR, "#chart .scatterlayer .point")) > len(RATES)
    assert "end" in one(page, "#checkpoint-name").text
    ticks = texts(page, "#chart .xtick text")
    assert ticks[0] == "input"
    assert len(ticks) == len(set(ticks)) == 5
    assert "no value" in drawn(page, "return chart.data.at(-1).text[0]")
    assert "1 significant drop, 0 significant rises" in one(page, "#steps").text
    key = texts(page, "#key li")
    assert "probe, not certified" in key
    assert "same layer, labels shuffled" in key


def test_lines_are_dotted_where_no_change_was_found(page):
    parts = drawn(
        page,
        "return chart.data.filter((t) => t.mode === 'lines' && t.x.includes(null))"
        ".map((t) => [t.line.dash || 'solid', t.x])",
    )
    assert ["solid", [0, 1, None, 2, 3, None, 3, 4, None]] in parts
    assert ["2px,4px", [1, 2, None]] in parts


def test_names_from_users_do_nothing(page):
    assert page.find_elements(By.TAG_NAME, "img") == []
    assert EVIL in texts(page, "tbody th button")
    one(page, "tbody tr:nth-child(2) th button").click()
    assert texts(page, "#detail-body h3")[0].startswith(EVIL)
    assert page.find_elements(By.TAG_NAME, "img") == []


def test_an_injected_handler_would_be_stopped(browser, report):
    open_page(browser, report)
    browser.execute_script(
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 1\">')"
    )
    WebDriverWait(browser, 120).until(lambda _: complaints(browser))
    assert browser.execute_script("return window.ran") is None


def test_slider_moves_with_the_keyboard(page):
    assert one(page, "#steps").text != ""
    slider = one(page, "#slider")
    slider.send_keys(Keys.ARROW_LEFT)
    assert one(page, "#checkpoint-name").text == "start"
    assert slider.get_attribute("aria-valuetext") == "start; 1 of 2"
    assert one(page, "#steps").text == ""
    slider.send_keys(Keys.ARROW_RIGHT)
    assert "end" in one(page, "#checkpoint-name").text


def test_the_best_layer_of_the_last_checkpoint_is_selected_at_first(page):
    assert texts(page, "#detail-body h3")[0].startswith("logits")
    assert one(page, "#selected").text == "logits: test error 0.0500; more below."
    band = drawn(page, "return chart.layout.shapes[0]")
    assert (band["x0"], band["x1"]) == (2.75, 3.25)


def test_zoom_stays_until_another_scale_is_chosen(page):
    drawn(page, "return Plotly.relayout(chart, {dragmode: 'zoom'})")  # as with a mouse
    moves = ActionChains(page)
    pointer = moves.w3c_actions.pointer_action
    pointer.move_to_location(*map(round, position(page, 1, 0.2)))
    pointer.pointer_down()
    pointer.move_to_location(*map(round, position(page, 3, 0.05)))
    pointer.pointer_up()
    moves.perform()
    zoomed = "return [chart._fullLayout.xaxis.range, chart._fullLayout.yaxis.range]"
    x, y = drawn(page, zoomed)
    assert x == [pytest.approx(1, abs=0.05), pytest.approx(3, abs=0.05)]
    assert y == [pytest.approx(0.05, abs=0.01), pytest.approx(0.2, abs=0.01)]
    one(page, "#slider").send_keys(Keys.ARROW_LEFT)
    one(page, "#table tbody th button").click()
    assert drawn(page, zoomed) == [x, y]
    one(page, "#log").click()
    assert drawn(page, zoomed)[1] != y


def test_other_checkpoints_are_named_at_their_end(page):
    (other,) = drawn(page, "return chart.data.filter((t) => t.meta === 'others')")
    assert other["text"] == ["", "", "", "start"]
    one(page, "#slider").send_keys(Keys.ARROW_LEFT)
    (other,) = drawn(page, "return chart.data.filter((t) => t.meta === 'others')")
    assert other["text"][-1] == "end"


def test_play_goes_from_first_to_last_and_stops(page):
    one(page, "#play").click()
    assert "start" in one(page, "#checkpoint-name").text
    assert one(page, "#play").text == "Pause"
    WebDriverWait(page, 120).until(lambda _: one(page, "#play").text == "Play")
    assert "end" in one(page, "#checkpoint-name").text


def move_to(browser, place):
    moves = ActionChains(browser)
    moves.w3c_actions.pointer_action.move_to_location(*map(round, place))
    moves.perform()


def test_hover_finds_the_probe_below_a_control_and_the_control_elsewhere(browser, tmp_path):
    controls = tuple(
        control_record("untrained", layer, test_error_rate=rate, selectivity=None)
        for layer, rate in (("input", 0.3), ("logits", 0.5))
    )
    run = run_record(checkpoint_record([0.3, 0.1], controls=controls))
    open_page(browser, write_report(run, tmp_path).as_uri())
    for rate, found in ((0.3, "l2 1e-6"), (0.5, "same layer, untrained network 0.5000")):
        move_to(browser, position(browser, int(rate == 0.5), rate))
        WebDriverWait(browser, 120).until(
            lambda _, found=found: any(
                found in text for text in texts(browser, "#chart .hoverlayer .hovertext")
            )
        )


def test_hover_tells_what_a_point_is(page):
    move_to(page, position(page, 3, 0.05))
    WebDriverWait(page, 120).until(lambda _: texts(page, "#chart .hoverlayer .hovertext"))
    (label,) = texts(page, "#chart .hoverlayer .hovertext")
    for part in ("logits", "0.0500", "l2 1e-6", "3.0e-5 nats", "22 passes", "width 128"):
        assert part in label


def test_arrow_keys_walk_along_the_curve(page):
    chart = one(page, "#chart")
    chart.send_keys(Keys.HOME)
    assert texts(page, "#detail-body h3")[0].startswith("input")
    chart.send_keys(Keys.ARROW_RIGHT)
    assert texts(page, "#detail-body h3")[0].startswith(EVIL)
    WebDriverWait(page, 120).until(
        lambda _: any(EVIL in text for text in texts(page, "#chart .hoverlayer .hovertext"))
    )
    chart.send_keys(Keys.END)
    assert "says nothing about the layer" in one(page, "#detail-body p").text


def test_click_on_a_point_shows_its_confusion(page):
    drawn(page, "chart.emit('plotly_click', {points: [{x: 3}]})")
    assert texts(page, "#detail-body h3")[0].startswith("logits")
    rows = [row.split() for row in texts(page, ".confusion tbody tr")]
    assert rows[0][-3:] == ["3", "1", "0.2500"]
    assert rows[1:] == [["cat", "(1)", "1", "3", "0.2500"], ["2", "(2)", "none"]]
    assert (
        f"Most frequent mistakes: {EVIL} \N{RIGHTWARDS ARROW} cat (1)"
        in one(page, "#detail-body").text
    )
    assert page.find_elements(By.TAG_NAME, "img") == []
    assert one(page, "tr.selected th").text == "logits"


def test_many_classes_are_a_picture(browser, tmp_path):
    confusion = tuple(tuple(9 if i == j else 1 for j in range(40)) for i in range(40))
    found = evaluation_record(confusion=confusion, per_class_error_rate=(0.5,) * 40)
    checkpoint = checkpoint_record([], probes=(probe_record(evaluation=found),))
    address = write_report(run_record(checkpoint), tmp_path).as_uri()
    open_page(browser, address)
    one(browser, "tbody th button").click()
    WebDriverWait(browser, 120).until(lambda _: texts(browser, "#heatmap .xtick"))
    assert complaints(browser) == []
    assert outside_requests(browser, address) == []
    assert not one(browser, "#player").is_displayed()  # there is one checkpoint only


def test_table_sorts_with_unknown_values_last(page):
    def click(key):
        one(page, f"th[data-key={key}] button").click()
        return texts(page, "tbody th button")

    assert click("test") == ["logits", EVIL, LONG, "input", "lost"]
    assert one(page, "th[data-key=test]").get_attribute("aria-sort") == "ascending"
    assert click("test") == ["input", LONG, EVIL, "logits", "lost"]
    assert one(page, "th[data-key=test]").get_attribute("aria-sort") == "descending"
    assert click("layer") == ["input", EVIL, LONG, "logits", "lost"]
    assert click("l2")[0] == "logits"
    assert one(page, "th[data-key=test]").get_attribute("aria-sort") == "none"


def test_search_finds_layers_by_a_part_of_their_name(page):
    one(page, "#search").send_keys("BLOCK.out")
    assert texts(page, "tbody th button") == [LONG]
    assert one(page, "#count").text == "1 of 5 layers"
    words = one(page, "tbody td.words").text
    assert words.startswith("Not certified as asked: the budget of passes ran out first.")
    assert "1e-5 (end)" in one(page, "#table tbody tr").text


def test_the_table_has_a_column_of_what_the_curve_shows(page):
    assert not one(page, "th[data-key=measure]").is_displayed()
    assert one(page, "#curve-title").text == "Test error along the depth"
    Select(one(page, "#measure")).select_by_visible_text("compression by MDL")
    assert one(page, "#curve-title").text == "Compression by MDL along the depth"
    assert one(page, "th[data-key=measure]").text == "compression by MDL"
    assert texts(page, "#table tbody tr:nth-child(1) td")[3] == "2.0000"
    assert not one(page, "#optimum").is_displayed()
    one(page, "th[data-key=measure] button").click()
    one(page, "th[data-key=measure] button").click()
    assert texts(page, "tbody th button")[-1] == "lost"
    Select(one(page, "#measure")).select_by_visible_text("training error")
    assert not one(page, "th[data-key=measure]").is_displayed()


def test_a_layer_is_told_with_its_controls(page):
    one(page, "tbody tr:nth-child(4) th button").click()
    beside = dict(pair.split("\n") for pair in texts(page, "#detail-body h3 + .facts > div"))
    assert (
        beside["same layer, labels shuffled"]
        == "0.9000, mean of 2 (0.9000\N{EN DASH}0.9000), selectivity 0.8000"
    )
    assert beside["the network's own error"] == "0.9000"
    assert beside["majority-class baseline"] == "0.8865"


def test_a_layer_is_told_with_the_range_of_the_exact_optimum(page):
    one(page, "tbody tr:nth-child(1) th button").click()
    facts = dict(pair.split("\n") for pair in texts(page, "#detail-body p + .facts > div"))
    low, high = wilson_interval(3000, 10_000)
    assert facts["95 % interval"] == f"{low:.4f}\N{EN DASH}{high:.4f}"
    assert facts["range of the exact optimum"] == "0.0400\N{EN DASH}0.4000"
    assert facts["l2"] == "1e-3"


def test_the_key_has_the_markers_of_the_curve(page):
    marked = [item.text for item in page.find_elements(By.CSS_SELECTOR, "#key li:has(polygon)")]
    assert marked == ["same layer, labels shuffled"]


def test_measures_and_scales_can_be_chosen(page):
    Select(one(page, "#measure")).select_by_visible_text("V-information")
    assert curve(page)[1] == [0.5] * 4
    assert one(page, "#chart .ytitle").text == "V-information (bits)"
    Select(one(page, "#measure")).select_by_visible_text("test error")
    assert not one(page, "#log").is_selected()
    one(page, "#log").click()
    assert drawn(page, "return chart._fullLayout.yaxis.type") == "log"
    assert "range of the exact optimum" not in texts(page, "#key li")  # it is wide here
    one(page, "#optimum").click()
    assert "range of the exact optimum" in texts(page, "#key li")
    one(page, "#others").click()
    assert "other checkpoints" not in texts(page, "#key li")


def test_errors_far_apart_open_on_a_logarithmic_scale(browser, tmp_path):
    run = run_record(checkpoint_record([0.5, 0.001, 0.0]))
    open_page(browser, write_report(run, tmp_path).as_uri())
    assert one(browser, "#log").is_selected()
    assert curve(browser)[1][2] == pytest.approx(0.5 / 10_000, abs=1e-4)
    assert complaints(browser) == []


@pytest.mark.parametrize("dark", [False, True])
def test_colours_follow_the_reader(browser, report, dark):
    open_page(browser, report, dark=dark)
    palette = DARK if dark else LIGHT
    assert (
        drawn(browser, "return chart.data.find((t) => t.meta === 'curve').line.color")
        == (palette["blue"])
    )
    background = browser.execute_script(
        "return getComputedStyle(document.documentElement).backgroundColor"
    )
    red, green, blue = (int(palette["surface"][i : i + 2], 16) for i in (1, 3, 5))
    assert background == f"rgb({red}, {green}, {blue})"


@pytest.mark.parametrize("width", [360, 390])
def test_a_phone_needs_no_sideways_scrolling(browser, report, width):
    open_page(browser, report, width=width, height=844)
    one(browser, "tbody tr:nth-child(3) th button").click()
    size = browser.execute_script("return document.documentElement.scrollWidth")
    assert size <= width
    assert drawn(browser, "return chart._fullLayout.dragmode") is not None
    assert complaints(browser) == []


def test_paper_is_light_and_holds_the_whole_table(browser, report):
    open_page(browser, report, dark=True)
    pages = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})
    assert base64.b64decode(pages["data"]).startswith(b"%PDF")
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert drawn(browser, "return chart.layout.font.color") == LIGHT["ink"]
    assert drawn(browser, "return chart.clientWidth") == 680
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    assert drawn(browser, "return chart.layout.font.color") == DARK["ink"]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not one(browser, "#player").is_displayed()
    assert one(browser, "#print-checkpoint").is_displayed()
    head = "return getComputedStyle(document.querySelector('#table thead th'), '::after').content"
    assert browser.execute_script(head) == '"layer"'
    scroll = "const box = document.getElementById('table-scroll');"
    assert browser.execute_script(scroll + "return box.scrollHeight <= box.clientHeight")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_a_run_without_probes_says_so(browser, tmp_path):
    open_page(browser, write_report(run_record(complete=False), tmp_path).as_uri())
    assert one(browser, "#curve-section").text == "The run has no probes yet."
    assert complaints(browser) == []
