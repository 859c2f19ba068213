"""What a watcher of `gristmill up` sees in a real browser: the quick-start builds, trains and shows itself, and no text acts."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flows.recipe import find_recipe

from .prefect_api import ask, wait_until
from .site_process import SiteProcess

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Locator, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def _browser() -> str | None:
    """GRISTMILL_BROWSER, or the first that is installed."""
    given = os.environ.get("GRISTMILL_BROWSER")
    return given or next(filter(None, map(shutil.which, BROWSERS)), None)


pytestmark = [
    pytest.mark.prefect,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        find_spec("playwright") is None,
        reason="the package playwright is not installed: pip install -e '.[ui]'",
    ),
    pytest.mark.skipif(
        _browser() is None,
        reason=f"no browser: none of {', '.join(BROWSERS)} is installed, GRISTMILL_BROWSER is not set",
    ),
]

HOSTILE = (
    "<script>window.harm=1</script><img src=x onerror=alert(1)> "
    "[press](javascript:alert(2)) ![seen](http://127.0.0.1:9/seen.png) www.a.example | b"
)
"""Each part of it is something else if anything on the way to the page takes it for markup; the card shows 160 characters."""

PROMPT = "<script>alert('prompt')</script>"

TRAIN = f"""
[train]
preset = "1m"
steps = 300
batch_tokens = 1024
warmup_steps = 10
eval_every = 50
eval_tokens = 8192
final_eval_tokens = 16384
checkpoint_every = 50
sample_prompts = [{json.dumps(PROMPT)}]
"""
"""Training of some twenty seconds on two cores: a watcher comes in the midst of it."""


def write_recipe(folder: Path) -> Path:
    """The quick-start with a small model, and a source of texts that would like to be more than text."""
    shipped = find_recipe("quickstart")
    text, *_ = shipped.read_text().partition("\n[train]")
    text = re.sub('path = "', f'path = "{shipped.parent}/', text)
    file = folder / "hostile" / "<img src=x onerror=alert(3)>.jsonl"
    file.parent.mkdir(parents=True)
    # Few letters among many signs: a rule that drops nothing else in the quick-start, so that its example is ours.
    dropped = [f"{HOSTILE} {number} " + "~ " * 2000 for number in range(6)]
    kept = "A licence is a text, too, and this document is kept so that its licence is shown to everybody."
    file.write_text("".join(json.dumps({"text": line}) + "\n" for line in [*dropped, kept]))
    source = """
[[sources]]
name = "hostile"
path = "hostile/*.jsonl"
domain = "notes"
license = "<b>free</b>"
"""
    recipe = folder / "quickstart.toml"
    recipe.write_text(text + source + TRAIN)
    return recipe


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteProcess]:
    """A site that has just begun to build the quick-start."""
    folder = tmp_path_factory.mktemp("site")
    site = SiteProcess(folder / "lake", write_recipe(folder / "recipe"), "--now")
    site.environment.pop("PREFECT_API_URL", None)
    try:
        site.start()
        yield site
        assert site.stop() == 0
    finally:
        site.end()


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """The browser, without a window."""
    from playwright.sync_api import sync_playwright  # not there, the tests are skipped

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic"]
        browser = playwright.chromium.launch(executable_path=_browser(), args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: "Browser", site: SiteProcess) -> "Iterator[Page]":
    """A page of the site's UI; whatever a text did to it is found at its end."""
    page = browser.new_page(
        viewport={"width": 1400, "height": 1000},
        base_url=site.ready["ui"].removesuffix("dashboard"),
    )
    # A site that builds on a machine of two cores leaves the browser little: only a page that never comes is a failure.
    page.set_default_timeout(120_000)
    dialogs: list[str] = []
    requests: list[str] = []

    def dismiss(dialog: "Dialog") -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", dismiss)
    page.on("request", lambda request: requests.append(request.url))
    yield page
    assert not dialogs
    assert not [url for url in requests if "seen.png" in url]
    assert page.evaluate("window.harm") is None
    page.close()


def see(page: "Page", path: str, text: str, seconds: float = 180) -> None:
    """Open a page, again and again as a watcher does, until it has the text."""
    from playwright.sync_api import TimeoutError

    def look() -> bool:
        page.goto(path)
        try:
            page.get_by_text(text).first.wait_for(timeout=10_000)
        except TimeoutError:
            return False
        return True

    try:
        wait_until(look, seconds, f"{path} to show '{text}'")
    except AssertionError as error:
        raise AssertionError(f"{error}; it shows: {page.inner_text('body')}") from None


def run_page(site: SiteProcess, flow: str) -> str:
    """Path of the page of the flow's one run, waited for."""
    [run] = wait_until(lambda: site.runs(flow), 180, f"a run of {flow}")
    return f"runs/flow-run/{run['id']}"


def open_card(site: SiteProcess, page: "Page", key: str, text: str) -> "Locator":
    """Open the newest card of a key as a watcher finds it, by the list of all; its body, once it has the text."""
    see(page, "artifacts", key, 180)
    page.get_by_role("link", name=key).click()
    page.locator("a[href*='/artifacts/artifact/']").first.click()
    card = page.locator(".prose")
    card.get_by_text(text).first.wait_for()
    return card


def stored(site: SiteProcess, key: str) -> str:
    """The newest card of a key as the server has it."""
    [row] = ask(site.api, "artifacts/latest/filter", {"artifacts": {"key": {"any_": [key]}}})
    return row["data"]


def assert_only_text(card: "Locator") -> None:
    """Nothing on the card is there but what our own markdown makes."""
    assert card.locator("script, iframe, object, form, input, [onerror], [onclick]").count() == 0
    assert card.locator("a").count() == 0
    sources = card.locator("img").evaluate_all("images => images.map(image => image.src)")
    assert sources and all(source.startswith("data:image/svg+xml") for source in sources)


def shown(card: "Locator") -> str:
    """The card's text on one line, without the places where a line may break."""
    return " ".join(card.inner_text().replace("\u200b", "").split())


# --- in the order in which a watcher sees them -------------------------------------------------


def test_dashboard_shows_the_site_at_work(site: SiteProcess, page: "Page") -> None:
    """The address that `up` prints leads to runs, and to a pool with a worker."""
    see(page, site.ready["ui"], "Active Work Pools")
    page.get_by_text(site.ready["pool"]).wait_for()
    page.get_by_text("Flow Runs").wait_for()


def test_form_of_a_custom_run(site: SiteProcess, page: "Page") -> None:
    """Sections, help and choices are readable; an empty field is an empty field."""
    deployment = ask(site.api, "deployments/name/train-on-snapshot/quickstart")
    see(page, f"deployments/deployment/{deployment['id']}/run", "What to train on.")
    for text in (
        "What to work on.",
        "How much the run may take.",
        "Keys of the recipe to change for this run alone",
        "A promoted snapshot such as corpus@3; empty: the newest one.",
        "End the run after so long",
    ):
        assert page.get_by_text(text).is_visible()
    assert page.get_by_label("Recipe").input_value() == site.arguments[0]
    assert page.get_by_label("Workers").input_value() == ""
    assert page.get_by_text("Property is type").count() == 0
    choice = page.get_by_label("If Newer")
    assert choice.inner_text() == "keep to this"
    choice.click()
    page.get_by_role("option", name="take the newer").click()
    wait_until(lambda: choice.inner_text() == "take the newer", 60, "the choice to be taken")


def test_build_is_complete_with_its_stages(site: SiteProcess, page: "Page") -> None:
    """The run's name says what came of it; its stages are task runs, drawn as bars over time."""
    path = run_page(site, "build-corpus")
    site.wait_for("build-corpus", {"Promoted"}, 180)
    see(page, path, "quickstart@1 promoted")
    page.get_by_text("Promoted", exact=True).first.wait_for()
    timeline = page.locator("canvas").first
    timeline.wait_for()
    # One colour alone is some 3 kB; bars and their names, which are drawn after the canvas is there, are 30.
    wait_until(lambda: len(timeline.screenshot()) > 10_000, 90, "the timeline to be drawn")
    see(page, f"{path}?tab=TaskRuns", "Settle every document's fate")
    for stage in ("Read and normalise", "Judge quality, language, toxicity", "Train the tokenizer"):
        assert page.get_by_text(stage).first.is_visible()


def test_automation_has_started_the_training(site: SiteProcess, page: "Page") -> None:
    """The run says who made it, and the automation says why."""
    automation = "quickstart: train on a fresh snapshot"
    see(page, f"{run_page(site, 'train-on-snapshot')}?tab=Details", automation)
    see(page, "automations", "At gristmill.snapshot.promoted of quickstart")
    assert page.get_by_text(automation).first.is_visible()


def test_training_card_changes_while_it_trains(site: SiteProcess, page: "Page") -> None:
    """The same card, looked at again, has got on; at the end it has curves, and a prompt that stayed text.

    A machine that is through with the training before the browser has drawn the card shows its end alone.
    """
    key = "training-card-quickstart"
    see(page, "artifacts", key, 180)
    before = stored(site, key)
    card = open_card(site, page, key, "trained on")
    first = shown(card)

    def is_other() -> bool:
        if stored(site, key) == before:  # each look at a page takes a second of a core
            return False
        page.reload()
        card.get_by_text("trained on").wait_for()
        return shown(card) != first

    if ": finished trained on" not in first:
        wait_until(is_other, 240, "the card to change")
    wait_until(lambda: ": finished\n" in stored(site, key), 240, "the training to be finished")
    page.reload()
    card.get_by_text("finished").wait_for()
    card.get_by_text("trained on").wait_for()
    page.wait_for_load_state("networkidle")
    assert PROMPT in shown(card)
    assert_only_text(card)


def test_data_card_is_drawn_and_its_texts_are_text(site: SiteProcess, page: "Page") -> None:
    """The funnel is a picture that the browser has drawn; texts, file names and licences are shown as they are."""
    card = open_card(site, page, "corpus-card-quickstart", "What became of what was read")
    funnel = card.locator("img").first
    wait_until(lambda: funnel.evaluate("image => image.naturalWidth") > 0, 60, "the funnel")
    assert (funnel.bounding_box() or {"height": 0})["height"] > 100
    card.locator("svg").get_by_text("quickstart@1").first.wait_for()  # the lineage
    text = shown(card)
    assert HOSTILE in text
    assert "hostile/<img src=x onerror=alert(3)>.jsonl" in text
    assert "<b>free</b> (1)" in text
    assert_only_text(card)


def test_custom_run_of_the_form_as_it_is(site: SiteProcess, page: "Page") -> None:
    """What the form sends is what the flow takes, empty fields among it; nothing is new by now."""
    deployment = ask(site.api, "deployments/name/build-corpus/quickstart")
    page.goto(f"deployments/deployment/{deployment['id']}/run")
    page.get_by_text("How much the run may take.").wait_for()

    def is_taken() -> bool:
        with page.expect_response(re.compile("/create_flow_run$")) as answer:
            page.get_by_role("button", name="Submit").press("Enter")
        assert answer.value.ok or answer.value.status == 503, answer.value.text()
        return answer.value.ok  # if its database is busy, the server says so, and one tries again

    wait_until(is_taken, 120, "the form to be taken")
    site.wait_for("build-corpus", {"Unchanged"}, 180)
