"""The page in a browser: headless Chromium opens it, with the width of a desktop and of a phone."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jobs import job_for, run
from reports import full_facts

from pipeline.report import write_report

CHROMIUM = shutil.which("chromium")
IS_REQUIRED = os.environ.get("REQUIRE_CHROMIUM") == "1"
pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not IS_REQUIRED, reason="no chromium here; REQUIRE_CHROMIUM=1 makes that a failure"
)

_ITS_OWN = "not an origin"
DESK, PHONE = (1280, 900), (390, 844)
KINDS = ("passed", "failed", "real")
POLICY = re.compile(r"<meta http-equiv=\"Content-Security-Policy\"[^>]*>")
MEASURE = """<script>
addEventListener("load", () => {
  const root = document.documentElement, wide = e => e.scrollWidth > e.clientWidth + 1;
  const isFolded = e => e.checkVisibility && !e.checkVisibility();
  const measure = () => ({
    width: root.clientWidth,
    scrollWidth: root.scrollWidth,
    unreachable: [...document.querySelectorAll("*")].filter(e =>
      /auto|scroll/.test(getComputedStyle(e).overflowX) && wide(e) && e.tabIndex < 0 && !e.querySelector("a")
    ).map(e => e.outerHTML.slice(0, 90)),
    // Tables of many columns become cards; one of few may be as wide as a hash.
    pushed: [...document.querySelectorAll(".scroll")].filter(e =>
      !isFolded(e) && wide(e) && e.querySelector("table.cards")
    ).map(e => e.getAttribute("aria-label")),
    cut: [...document.querySelectorAll("h1, h2, h3, p, li, summary, dt, dd, figcaption")].filter(e =>
      !isFolded(e) && !e.closest(".scroll, nav, .skip") && e.getBoundingClientRect().right > root.clientWidth
    ).map(e => e.textContent.slice(0, 60)),
    letters: Math.min(99, ...[...document.querySelectorAll("svg text")].filter(e => !isFolded(e)).map(e =>
      parseFloat(getComputedStyle(e).fontSize) * Math.hypot(e.getScreenCTM().a, e.getScreenCTM().b))),
    drawings: [...document.querySelectorAll("svg")].filter(e =>
      !isFolded(e) && e.getBoundingClientRect().width > 99).length,
    failures: [...document.querySelectorAll("td .bad")].filter(e => !isFolded(e)).length,
    background: getComputedStyle(document.body).backgroundColor,
    text: getComputedStyle(document.body).color,
  });
  const closed = measure();
  document.querySelectorAll("details").forEach(e => e.open = true);
  parent.postMessage(JSON.stringify({closed, open: measure()}), "*");
});
</script>"""
# Chromium opens no window as narrow as a phone; a frame of that width is one to the page in it.
FRAME = """<!doctype html><title>nothing was measured</title>
<script>addEventListener("message", event => { document.title = event.data; });</script>
<iframe src="copy.html" style="width: %dpx; height: %dpx; border: 0"></iframe>"""


@dataclass(frozen=True)
class Visit:
    """Result of opening a page.

    Args:
        page: the page as it stands after its scripts.
        console: what was written to the console, errors of scripts and refused loads among it.
        fetched: the addresses that the page, not Chromium on its own, asked for.
    """

    page: str
    console: list[str]
    fetched: list[str]


def visit(path: Path, folder: Path, flags: Sequence[str] = ()) -> Visit:
    """Opens a page in a new Chromium without a network."""
    assert CHROMIUM is not None, "REQUIRE_CHROMIUM=1, and there is no chromium: apt-get install chromium"
    log = folder / "net.json"
    done = subprocess.run(
        [
            CHROMIUM,
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
            *("--disable-component-update", "--disable-extensions", "--host-resolver-rules=MAP * ~NOTFOUND"),
            *(f"--user-data-dir={folder / 'profile'}", "--window-size=1400,1000", "--enable-logging=stderr"),
            *(f"--log-net-log={log}", *flags, "--dump-dom", path.as_uri()),
        ],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    console = [line for line in done.stderr.splitlines() if ":CONSOLE:" in line]
    told = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    # Chromium names no origin for what it asks of its makers on its own.
    asked = [params for params in told if "url" in params and params.get("initiator", _ITS_OWN) != _ITS_OWN]
    return Visit(done.stdout, console, [params["url"] for params in asked])


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of a model that passed and of one that failed, with all that a report can tell, and a run's own."""
    found = {}
    for kind in KINDS[:2]:
        folder = tmp_path_factory.mktemp(kind)
        write_report(folder, full_facts(folder, kind == "passed"))
        found[kind] = folder / "report.html"
    job = job_for(tmp_path_factory.mktemp("real"))
    run(job)
    return {**found, "real": job.folder("report") / "report.html"}


def measured(page: Path, folder: Path, size: tuple[int, int], flags: Sequence[str] = ()) -> dict[str, Any]:
    """Measures of a copy of a page; its own policy would not let any script run."""
    text, policies = POLICY.subn("", page.read_text(encoding="utf-8"))
    assert policies == 1
    (folder / "copy.html").write_text(text.replace("</body>", f"{MEASURE}</body>"), encoding="utf-8")
    (folder / "frame.html").write_text(FRAME % size, encoding="utf-8")
    framed = visit(folder / "frame.html", folder, flags)
    title = re.search(r"<title>(.*?)</title>", framed.page, re.DOTALL)
    assert title is not None
    measures: dict[str, Any] = json.loads(html.unescape(title[1]))
    return measures


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_opens_without_an_error_and_asks_for_nothing(
    kind: str, pages: dict[str, Path], tmp_path: Path
) -> None:
    found = visit(pages[kind], tmp_path)
    assert ("Failed</h1>" if kind == "failed" else "Passed</h1>") in found.page
    assert (found.console, found.fetched) == ([], [])


def test_an_error_and_a_fetch_would_be_seen(pages: dict[str, Path], tmp_path: Path) -> None:
    text = POLICY.sub("", pages["passed"].read_text(encoding="utf-8"))
    bad = '<img src="http://outside.example/x.png"><script>nothing()</script></body>'
    (tmp_path / "bad.html").write_text(text.replace("</body>", bad), encoding="utf-8")
    found = visit(tmp_path / "bad.html", tmp_path)
    assert set(found.fetched) == {"http://outside.example/x.png"}
    assert any("nothing is not defined" in line for line in found.console)


def test_the_pages_policy_lets_nothing_foreign_in(pages: dict[str, Path], tmp_path: Path) -> None:
    bad = '<img src="http://outside.example/x.png"><script>document.title = "ran"</script></body>'
    (tmp_path / "bad.html").write_text(
        pages["passed"].read_text(encoding="utf-8").replace("</body>", bad), encoding="utf-8"
    )
    found = visit(tmp_path / "bad.html", tmp_path)
    assert found.fetched == []
    assert "<title>Passed: sms</title>" in found.page


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_the_page_fits_its_window_and_is_legible(
    kind: str, size: tuple[int, int], pages: dict[str, Path], tmp_path: Path
) -> None:
    measures = measured(pages[kind], tmp_path, size)
    for state in (measures["closed"], measures["open"]):
        assert state["pushed"] == [] or size == DESK
        assert state["scrollWidth"] <= state["width"] <= size[0]
        assert state["cut"] == []
        # By keyboard, what scrolls is reached itself or by a link in it.
        assert state["unreachable"] == []
        assert state["letters"] >= 7.5  # pixels, of the smallest in any drawing
    assert measures["open"]["drawings"] >= measures["closed"]["drawings"] >= (kind != "real")


def test_what_failed_is_in_sight_before_anything_is_unfolded(pages: dict[str, Path], tmp_path: Path) -> None:
    measures = measured(pages["failed"], tmp_path, PHONE)
    assert measures["closed"]["failures"] == measures["open"]["failures"] >= 3


def test_the_page_is_dark_where_the_reader_wants_it_dark(pages: dict[str, Path], tmp_path: Path) -> None:
    looks = [
        measured(pages["failed"], tmp_path, DESK, [f"--blink-settings=preferredColorScheme={scheme}"])["closed"]
        for scheme in (1, 0)
    ]
    brightness = [
        [sum(map(int, re.findall(r"\d+", look[key])[:3])) for key in ("background", "text")] for look in looks
    ]
    assert brightness[0][0] > 600 > 200 > brightness[0][1]
    assert brightness[1][0] < 200 < 600 < brightness[1][1]
