"""Takes the README's pictures of a site from the site itself, once it has built and trained the quick-start.

gristmill up quickstart --now                           # until the run of train-on-snapshot is Trained
python flows/pictures/take.py lake     # in another terminal; needs pip install -e '.[ui]' and chromium
"""

import base64
import json
import shutil
import sys
import urllib.request
from pathlib import Path
from typing import Any

from playwright.sync_api import FloatRect, Locator, Page, sync_playwright

HERE = Path(__file__).parent
MARGIN = 12


def newest(site: dict[str, Any], what: str, question: dict[str, Any]) -> dict[str, Any]:
    """The first row of an answer of Prefect's API."""
    auth = base64.b64encode(Path(site["auth_file"]).read_bytes()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {auth}"}
    url = f"{site['api_url']}/{what}"
    request = urllib.request.Request(url, json.dumps(question).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)[0]


def take(page: Page, name: str, top: Locator, end: Locator, width: float) -> None:
    """The page from the top of one thing to just above another."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1000)  # the timeline moves into its place
    first, last = top.bounding_box(), end.bounding_box()
    assert first and last
    x, y = first["x"] - MARGIN, first["y"] - MARGIN
    area = FloatRect(x=x, y=y, width=width + 2 * MARGIN, height=last["y"] - y - 2 * MARGIN)
    page.screenshot(path=HERE / name, clip=area)


def take_card(page: Page, site: dict[str, Any], key: str, name: str, end: str) -> None:
    """A card from its title to some text in it."""
    card = newest(site, "artifacts/latest/filter", {"artifacts": {"key": {"any_": [key]}}})
    page.goto(f"artifacts/artifact/{card['latest_id']}")
    body = page.locator(".prose")
    body.get_by_text(end).first.wait_for()
    box = body.bounding_box()
    assert box
    take(page, name, body.locator("h1"), body.get_by_text(end).first, box["width"])


def main(lake: Path) -> None:
    """Take all three."""
    site = json.loads((lake / "site/site.json").read_text())
    builds = {
        "flows": {"name": {"any_": ["build-corpus"]}},
        "flow_runs": {"state": {"name": {"any_": ["Promoted"]}}},
    }
    run = newest(site, "flow_runs/filter", builds)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        base = site["ui"].removesuffix("dashboard")
        page = browser.new_page(viewport={"width": 1400, "height": 3000}, base_url=base)
        page.goto(site["open"])
        page.wait_for_url("**/dashboard**")
        page.goto(f"runs/flow-run/{run['id']}?tab=TaskRuns")
        page.get_by_text("Settle every document's fate").first.wait_for()
        timeline = page.locator("canvas").first
        box = timeline.bounding_box()
        assert box
        title = page.get_by_text("Runs", exact=True).nth(1)
        end = page.get_by_text("Find and verify near-duplicates").first
        take(page, "site-run.png", title, end, box["width"])
        take_card(page, site, "corpus-card-quickstart", "data-card.png", "Gates")
        take_card(page, site, "training-card-quickstart", "training-card.png", "After step")
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
