"""Which training run a user means: by name, by folder, or as the newest one of a corpus."""

from pathlib import Path

from model.records import read_object
from storage.errors import NotFoundError
from storage.lake import Lake


def run_in_folder(text: str) -> tuple[Lake, str] | None:
    """The lake and name of a run given by its folder `<lake>/runs/<name>`; None if it is no such folder."""
    folder = Path(text).absolute()
    if not (folder / "run.json").is_file():
        return None
    return Lake.open(folder.parent.parent), folder.name


def is_run(lake: Lake, name: str) -> bool:
    """Whether the lake has a run of that name."""
    return "/" not in name and name in lake.list_folders("runs")


def find_run(lake: Lake, text: str) -> tuple[Lake, str]:
    """The run that a name, a folder, a corpus or a snapshot (corpus@3) stands for; of several, the one begun last.

    Raises NotFoundError that says what there is.
    """
    if (in_folder := run_in_folder(text)) is not None:
        return in_folder
    if is_run(lake, text):
        return lake, text
    newest = newest_run(lake, text)
    if newest is None:
        runs = ", ".join(lake.list_folders("runs")) or "none"
        raise NotFoundError(
            f"{text}: expected a training run of {lake}, its folder, or a corpus with one; runs: {runs}"
        )
    return lake, newest


def finished_run(lake: Lake, corpus: str, run: str | None = None) -> str:
    """The run, or without one the corpus's run finished last. Raises NotFoundError if it is not finished."""
    finished = {
        entry.path.split("/")[1]: entry.modified
        for entry in lake.list("runs")
        if entry.path.endswith("/result.json") and entry.path.count("/") == 2
    }
    if run is None:
        mine = [(when, name) for name, when in finished.items() if _corpus_of(lake, name) == corpus]
        if mine:
            return max(mine)[1]
        raise NotFoundError(
            f"{corpus}: expected a finished training run in {lake}, found none; train one first"
        )
    if run not in finished:
        known = ", ".join(sorted(finished)) or "none"
        raise NotFoundError(
            f"{run}: expected a finished training run of {lake}; there are: {known}"
        )
    return run


def _corpus_of(lake: Lake, run: str) -> str:
    return read_object(lake, f"runs/{run}/run.json")["snapshot"].partition("@")[0]


def newest_run(lake: Lake, ref: str) -> str | None:
    """The run begun last on a corpus (`name`, `name@latest`: any of its snapshots) or on a snapshot (`name@3`).

    One without a checkpoint, which cannot be sampled, comes after all others.
    """
    corpus, _, version = ref.partition("@")
    found = []
    for run in lake.list_folders("runs"):
        path = f"runs/{run}/run.json"
        files = {entry.path: entry for entry in lake.list(f"runs/{run}")}
        if path in files:
            name, _, trained = read_object(lake, path)["snapshot"].partition("@")
            if name == corpus and version in ("", "latest", trained):
                has_checkpoint = any(file.endswith("/state.json") for file in files)
                found.append((has_checkpoint, files[path].modified, run))
    return max(found)[2] if found else None
