"""The page as text: whole, small enough, and free of anybody's markup."""

import base64
import hashlib
import html
import json
import math
import os
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from linprobe.cli import main as cli
from linprobe.records.config import LoadingRecord
from linprobe.records.schema import EnvironmentRecord, TriedPenalty
from linprobe.records.store import save
from linprobe.report.page import report_html, write_report
from linprobe.runtime.errors import LinprobeError
from tests.support.records import (
    checkpoint_record,
    control_record,
    dataset_record,
    evaluation_record,
    probe_record,
    run_config,
    run_record,
    step_record,
    trained_run,
)

EVIL = "<img src=x onerror=alert(1)>"


class Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.scripts, self.text, self._open = [], [], "", None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._open = None

    def handle_data(self, data):
        if self._open == "script":
            self.scripts[-1] += data
        elif self._open != "style":
            self.text += data


def evil_run():
    probes = (
        probe_record(0, EVIL),
        probe_record(1, "</script><script>alert(2)</script>", math.nan, "nonfinite_features"),
        probe_record(2, "<!-- $title ${x} %{y}", evaluation=evaluation_record()),
    )
    return run_record(
        checkpoint_record([], EVIL, probes=probes),
        experiment=EVIL,
        dataset=dataset_record(name=EVIL, sha256={EVIL: EVIL}),
        config=run_config(skip_layer=EVIL, loading=LoadingRecord(EVIL, {EVIL: [EVIL]})),
        environment=EnvironmentRecord(EVIL, EVIL, EVIL, EVIL, 2, EVIL),
    )


@pytest.fixture(scope="module")
def evil():
    return Elements(report_html(evil_run()))


def test_names_from_users_are_never_markup(evil):
    assert not [tag for tag, _ in evil.tags if tag == "img"]
    assert [tag for tag, _ in evil.tags].count("script") == 3
    assert not [name for _, attrs in evil.tags for name in attrs if name.startswith("on")]
    assert f"Linear probes: {EVIL}, {EVIL}" in evil.text
    assert "<" not in evil.scripts[0]
    layers = json.loads(evil.scripts[0])["layers"]
    assert layers == [probe.layer for probe in evil_run().checkpoints[0].probes]


def test_nothing_is_loaded_from_elsewhere(evil):
    for tag, attrs in evil.tags:
        for name in ("src", "href", "action", "data"):
            assert attrs.get(name, "data:,").startswith("data:"), (tag, attrs)


def test_only_the_pages_own_scripts_may_run(evil):
    (policy,) = [
        attrs["content"] for _, attrs in evil.tags if "Content-Security" in str(attrs.values())
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    hashes = {
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in evil.scripts[1:]
    }
    assert set(rules["script-src"].split()) == hashes


def test_banners_warn(evil):
    assert "1 of 3 probes are not certified" in evil.text
    quick = report_html(run_record(checkpoint_record([0.1]), quick=True, complete=False))
    banners = re.findall(r'<p class="banner">(.*?)</p>', quick)
    assert ["QUICK" in text for text in banners[:2]] == [True, False]
    assert "UNFINISHED" in banners[1]
    assert '<p class="banner">' not in re.sub(
        "<noscript>.*?</noscript>",
        "",
        report_html(run_record(checkpoint_record([0.1]))),
        flags=re.S,
    )


def test_what_the_run_found_unusual_is_listed():
    probes = (probe_record(l2_at_edge=True), probe_record(1, "layer1", rounded=True))
    config = replace(run_config(), notes=(EVIL,))
    text = report_html(run_record(checkpoint_record([], probes=probes), config=config))
    first, *rest = re.findall(r'<li class="note">(.*?)</li>', text)
    assert first == html.escape(EVIL)
    assert rest[0].startswith("1 of 2 probes (input): the chosen penalty stands at an end of the")
    assert rest[1].startswith("1 probe: what it uses varies little beyond the rounding")


@pytest.mark.parametrize("by", ["cross-entropy", "error rate"])
def test_a_path_that_ended_names_what_still_fell(by):
    tried = TriedPenalty(1e-9, 0.5, 0.0, "near")
    probe = probe_record(l2_at_edge=True, path=(tried,))
    config = run_config()
    method = replace(config.method, choose_by=by.replace("-", "_").replace(" ", "_"))
    run = run_record(checkpoint_record([], probes=(probe,)), config=replace(config, method=method))
    assert f"the l2 path ended while the held-out {by} still fell" in report_html(run)


def test_a_run_of_trained_probes_says_so_once():
    text = report_html(trained_run("early_stop", "epoch_limit"))
    (banner,) = re.findall(
        r'<p class="banner">(.*?)</p>', re.sub("<noscript>.*?</noscript>", "", text, flags=re.S)
    )
    assert banner.startswith("PROTOCOL SGD: these probes were trained by SGD, for comparison")
    assert "<h1>Linear probes: fig8, mnist, protocol sgd</h1>" in text
    assert "1 of 2 probes have no value" in report_html(trained_run("early_stop", "diverged"))


def test_the_page_says_where_its_numbers_come_from():
    text = Elements(report_html(run_record(checkpoint_record([0.1, 0.2])))).text
    for part in (
        "mnist",
        "60,000 training and 10,000 test samples",
        "seed 3",
        "00ff",
        "skip_layer",
        "threads",
    ):
        assert part in text


def test_settings_have_no_digits_that_nobody_reads():
    given = {"fraction": 1 / 6, "path": [0.1, 1e-9], "rows": 123456789, "absent": None, "list": []}
    config = run_config(loading=LoadingRecord("a:b", given))
    text = Elements(report_html(run_record(checkpoint_record([0.1]), config=config))).text
    for part in (
        "fraction 0.166667",
        "path 0.1, 1e-09",
        "rows 123456789",
        "list none",
    ):
        assert part in text
    assert "absent" not in text


def test_a_probe_report_names_its_network_and_its_data():
    run = run_record(
        checkpoint_record([0.1]), experiment="probe", config=run_config(network="ResNet")
    )
    text = Elements(report_html(run)).text
    assert "Linear probes of ResNet" in text
    assert "mnist, 60,000 training and 10,000 test samples, seed 3, certified protocol" in text


def test_a_deep_run_with_all_evidence_stays_below_six_megabytes(tmp_path):
    confusion = tuple(tuple(100 + i for i in range(10)) for _ in range(10))
    found = evaluation_record(confusion=confusion, per_class_error_rate=(1 / 3,) * 10)
    probes = tuple(probe_record(i, f"layer{i}", 1 / 3, evaluation=found) for i in range(130))
    controls = tuple(
        control_record(name, probe.layer, repeat=repeat)
        for name in ("shuffled_labels", "control_task", "untrained", "random_features")
        for probe in probes
        for repeat in range(3)
    )
    steps = tuple(step_record(to_layer=probe.layer) for probe in probes[1:])
    more = {"probes": probes, "controls": controls, "steps": steps}
    run = run_record(*(checkpoint_record([], f"step{i}", i, **more) for i in range(3)))
    path = write_report(run, tmp_path)
    assert path.stat().st_size < 6_000_000
    assert path.read_text(encoding="utf-8") == report_html(run)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_an_unfinished_run_has_a_page_too():
    assert "0 of 0 probes" in report_html(run_record(complete=False))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LinprobeError, match=r"file/report\.html can't be written .* may write to"):
        write_report(run_record(), tmp_path / "file")


@pytest.mark.parametrize("name", ["", "results.json"])
def test_command_takes_the_folder_or_its_record(name, tmp_path, capsys):
    save(run_record(checkpoint_record([0.1, 0.2])), tmp_path)
    assert cli.main(["report", str(tmp_path / name)]) == 0
    assert capsys.readouterr().out == f"Written to {tmp_path}{os.sep}report.html\n"
    assert (tmp_path / "report.html").stat().st_size > 1_000_000


def test_command_names_a_folder_without_a_run(tmp_path, capsys):
    assert cli.main(["report", str(tmp_path / "none")]) == 2
    assert "none can't be read" in capsys.readouterr().err
