"""The command line: what every command is called, takes and says. What they do stands in `flows.commands`.

`gristmill --help` has to come at once, so this module imports nothing heavy: pyarrow, torch, prefect and the rest
(together 4 s) are imported by the modules that the commands import inside their bodies, marked "late".
"""

import os
import sys
from typing import Annotated

import typer

from flows.output import command

app = typer.Typer(
    name="gristmill",
    help="Raw text to versioned, explained, deduplicated token snapshots, and compact language models "
    "trained on them.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 refused by a gate, "
    "75 interrupted (the same command goes on).",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A TOML file, or the name of a shipped recipe.")
]
RefArgument = Annotated[
    str, typer.Argument(metavar="REF", help="A snapshot: corpus, corpus@latest or corpus@3.")
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A training run: its name, its folder, or a corpus.")
]
LakeOption = Annotated[
    str,
    typer.Option(
        "--lake", envvar="GRISTMILL_LAKE", metavar="PATH|s3://...", help="Where all is kept."
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option("--workers", min=1, metavar="N", help="Cores to use; default: all there are."),
]
ExecutorOption = Annotated[
    str,
    typer.Option(
        "--executor",
        envvar="GRISTMILL_EXECUTOR",
        metavar="KIND",
        help="Where to work: processes, serial, ray or dask.",
    ),
]
AddressOption = Annotated[
    str,
    typer.Option(
        "--address",
        envvar="GRISTMILL_ADDRESS",
        metavar="HOST:PORT",
        help="Of a running Ray or Dask cluster; default: one is started here.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one key of the recipe; repeatable."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
VerboseOption = Annotated[
    bool, typer.Option("-v", "--verbose", help="Details on stderr; tracebacks of errors.")
]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Nothing on stderr but errors.")]
FlowOption = Annotated[
    bool | None,
    typer.Option(
        "--flow/--no-flow",
        show_default=False,
        help="Through Prefect, or not. Default: only if a server answers at PREFECT_API_URL.",
    ),
]

DEFAULT_LAKE = "./lake"


@app.command(epilog="Example: gristmill run quickstart")
def run(
    recipe: RecipeArgument,
    lake: LakeOption = DEFAULT_LAKE,
    workers: WorkersOption = None,
    executor: ExecutorOption = "processes",
    address: AddressOption = "",
    overrides: SetOption = None,
    flow: FlowOption = None,
    json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Build the corpus, train a model on it, sample from it and write a report."""
    with command(as_json=json, verbose=verbose, quiet=quiet) as output:
        from flows.commands import run_recipe  # late

        run_recipe(
            output,
            recipe,
            lake,
            workers=workers,
            executor=executor,
            address=address,
            overrides=overrides or [],
            flow=flow,
        )


@app.command(epilog="Example: gristmill build recipe.toml --workers 2 --set dedup.threshold=0.8")
def build(
    recipe: RecipeArgument,
    lake: LakeOption = DEFAULT_LAKE,
    workers: WorkersOption = None,
    executor: ExecutorOption = "processes",
    address: AddressOption = "",
    overrides: SetOption = None,
    flow: FlowOption = None,
    json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Ingest what is new and publish the next snapshot of the corpus."""
    with command(as_json=json, verbose=verbose, quiet=quiet) as output:
        from flows.commands import build_recipe  # late

        build_recipe(
            output,
            recipe,
            lake,
            workers=workers,
            executor=executor,
            address=address,
            overrides=overrides or [],
            flow=flow,
        )


@app.command(epilog="Example: gristmill dedup crawl/*.jsonl.gz -o kept.jsonl --pairs removed.csv")
def dedup(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Files, folders or globs of one kind: JSON lines (.jsonl), a document a line (.txt), CSV (.csv, .tsv), "
            "all also with .gz, .zst, .bz2 or .xz; .parquet; .arrow, .feather.",
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            "-o",
            "--out",
            metavar="OUT",
            help="Kept rows, unchanged and in order; a file of their kind.",
        ),
    ],
    pairs: Annotated[
        str | None,
        typer.Option(
            "--pairs",
            metavar="PAIRS",
            help="List each removed row, the kept one and how similar they are: .jsonl, .csv or .parquet. In .csv a ' "
            "stands before cells that a spreadsheet would run as formulas.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against", metavar="REF", help="Remove also what this snapshot of --lake holds."
        ),
    ] = None,
    lake: LakeOption = DEFAULT_LAKE,
    text_field: Annotated[
        str | None,
        typer.Option(
            "--text-field",
            metavar="NAME",
            help="Field of the text, such as data.text; default: text.",
        ),
    ] = None,
    id_field: Annotated[
        str | None,
        typer.Option("--id-field", metavar="NAME", help="Field that names a row; default: id."),
    ] = None,
    domain: Annotated[
        str | None,
        typer.Option("--domain", metavar="NAME", help="'code' compares characters, not words."),
    ] = None,
    overrides: SetOption = None,
    workers: WorkersOption = None,
    executor: ExecutorOption = "processes",
    address: AddressOption = "",
    force: Annotated[
        bool, typer.Option("--force", help="Replace OUT and PAIRS if they exist.")
    ] = False,
    json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Take exact and near-duplicates out of files, without a lake: the engine of the builds."""
    with command(as_json=json, verbose=verbose, quiet=quiet) as output:
        from flows.dedup_command import dedup_rows  # late

        dedup_rows(
            output,
            files,
            out,
            pairs=pairs,
            against=against,
            location=lake,
            fields=(text_field, id_field),
            domain=domain,
            overrides=overrides or [],
            workers=workers,
            executor=executor,
            address=address,
            force=force,
        )


@app.command(epilog="Example: gristmill train recipe.toml --set train.steps=1000")
def train(
    recipe: RecipeArgument,
    lake: LakeOption = DEFAULT_LAKE,
    snapshot: Annotated[
        str | None,
        typer.Option("--snapshot", metavar="REF", help="Default: the newest promoted one."),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--run", metavar="NAME", help="Name of the run; default: from what it trains."
        ),
    ] = None,
    workers: WorkersOption = None,
    overrides: SetOption = None,
    flow: FlowOption = None,
    as_begun: Annotated[
        bool,
        typer.Option("--as-begun", help="Go on with --run as it was begun, whatever RECIPE says."),
    ] = False,
    events: Annotated[int | None, typer.Option("--events", metavar="FD", hidden=True)] = None,
    parent: Annotated[int | None, typer.Option("--die-with", metavar="PID", hidden=True)] = None,
    json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train on the newest promoted snapshot, or go on from the last checkpoint."""
    with command(as_json=json, verbose=verbose, quiet=quiet) as output:
        from flows.commands import train_recipe  # late
        from flows.process import die_with  # late

        if parent is not None:
            die_with(parent)
        train_recipe(
            output,
            recipe,
            lake,
            snapshot=snapshot,
            run=name,
            workers=workers,
            overrides=overrides or [],
            flow=flow,
            as_begun=as_begun,
            events=events,
        )


@app.command(epilog="Example: gristmill evaluate quickstart --snapshot quickstart@2")
def evaluate(
    run: RunArgument,
    snapshot: Annotated[
        str | None,
        typer.Option(
            "--snapshot", metavar="REF", help="Default: the newest promoted one of its corpus."
        ),
    ] = None,
    lake: LakeOption = DEFAULT_LAKE,
    tokens: Annotated[
        int, typer.Option("--tokens", min=1, help="Validation tokens to score at most.")
    ] = 2_000_000,
    workers: WorkersOption = None,
    parent: Annotated[int | None, typer.Option("--die-with", metavar="PID", hidden=True)] = None,
    json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Score a trained model on the validation documents of a snapshot."""
    with command(as_json=json, verbose=verbose, quiet=quiet) as output:
        from flows.commands import evaluate_model  # late
        from flows.process import die_with  # late

        if parent is not None:
            die_with(parent)
        evaluate_model(output, run, lake, snapshot=snapshot, tokens=tokens, workers=workers)


@app.command(epilog='Example: gristmill sample quickstart "To be, or not" --tokens 100')
def sample(
    run: RunArgument,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="Text to go on from.")] = "",
    lake: LakeOption = DEFAULT_LAKE,
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="Tokens to add at most.")] = 128,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0.0, help="0 takes the likeliest token.")
    ] = 0.8,
    top_k: Annotated[
        int, typer.Option("--top-k", min=0, help="Draw from so many likeliest tokens; 0: from all.")
    ] = 50,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=2**63 - 1, help="Of the random draws.")
    ] = 0,
    workers: WorkersOption = None,
    json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Let a trained model go on from a text."""
    with command(as_json=json, verbose=verbose, quiet=quiet) as output:
        from flows.commands import sample_run  # late

        sample_run(
            output,
            run,
            prompt,
            lake,
            tokens=tokens,
            temperature=temperature,
            top_k=top_k,
            seed=seed,
            workers=workers,
        )


@app.command(epilog="Example: gristmill inspect quickstart@1 --report report.html")
def inspect(
    ref: Annotated[
        str | None,
        typer.Argument(metavar="[REF]", help="A snapshot; without one, all that the lake holds."),
    ] = None,
    lake: LakeOption = DEFAULT_LAKE,
    report: Annotated[
        str | None, typer.Option("--report", metavar="FILE", help="Write the HTML report there.")
    ] = None,
    json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show a snapshot: where its documents went, its domains, rules, gates and inputs."""
    with command(as_json=json, verbose=verbose, quiet=quiet) as output:
        from flows.lookup import inspect_lake, inspect_snapshot  # late

        if ref is None:
            inspect_lake(output, lake, report=report)
        else:
            inspect_snapshot(output, ref, lake, report=report)


@app.command(epilog="Example: gristmill dump quickstart@1 --fates | head -3")
def dump(
    ref: RefArgument,
    lake: LakeOption = DEFAULT_LAKE,
    fates: Annotated[
        bool, typer.Option("--fates", help="What became of every document that was read.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON array, not a line a row.")] = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Print the kept documents as JSON lines (id, text, domain, uri), or the fates of all."""
    with command(as_json=json, verbose=verbose, quiet=quiet) as output:
        from flows.lookup import dump_snapshot  # late

        dump_snapshot(output, ref, lake, fates=fates)


@app.command(
    epilog="Example: gristmill forget mine --uri 'mail/anna/*' --reason 'asked by Anna' --dry-run"
)
def forget(
    corpus: Annotated[
        str | None,
        typer.Argument(metavar="[CORPUS]", help="Name of a corpus; needless if there is one."),
    ] = None,
    lake: LakeOption = DEFAULT_LAKE,
    ids: Annotated[
        list[str] | None, typer.Option("--id", metavar="ID", help="A document; repeatable.")
    ] = None,
    uris: Annotated[
        list[str] | None,
        typer.Option("--uri", metavar="PATTERN", help="Documents by where they lay; repeatable."),
    ] = None,
    hashes: Annotated[
        list[str] | None,
        typer.Option("--content-hash", metavar="H", help="Documents with a text; repeatable."),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option("--like", metavar="FILE", help="Near-duplicates of the text in a file."),
    ] = None,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; stands in the receipt.")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go, change nothing.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Take documents out of a corpus for good, with a receipt of what had seen them."""
    with command(as_json=json, verbose=verbose, quiet=quiet) as output:
        from flows.forget import forget_documents  # late

        forget_documents(
            output,
            corpus,
            lake,
            ids=ids or [],
            uris=uris or [],
            hashes=hashes or [],
            like=like,
            reason=reason,
            dry_run=dry_run,
            yes=yes,
        )


@app.command(epilog="Example: gristmill why conversation/chat.jsonl:26 --lake lake")
def why(
    doc: Annotated[
        str,
        typer.Argument(
            metavar="DOC",
            help="A document's id or its first digits, its uri (file:line, file#offset), or a content hash; a file or "
            "a pattern ('web/*') lists its documents.",
        ),
    ],
    within: Annotated[
        str | None,
        typer.Option(
            "--snapshot",
            "--in",
            metavar="REF",
            help="Fate as of that snapshot; default: the newest promoted one of each corpus.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe", metavar="RECIPE", help="To read the texts of removed documents again."
        ),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="The whole diff, text and cluster, not their beginning.")
    ] = False,
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say what became of a document and why; of a duplicate, beside which one, with a diff."""
    with command(as_json=json, verbose=verbose, quiet=quiet) as output:
        from flows.why import explain  # late

        explain(output, doc, lake, within=within, recipe=recipe, full=full)


@app.command(name="hash", epilog="Example: gristmill hash quickstart@1")
def hash_(
    ref: Annotated[
        str, typer.Argument(metavar="REF|RUN", help="A snapshot, or a run's name or folder.")
    ],
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Print the hash of what a snapshot or a run is, whenever and wherever it was made."""
    with command(as_json=json, verbose=verbose, quiet=quiet) as output:
        from flows.lookup import hash_of  # late

        hash_of(output, ref, lake)


@app.command(epilog="Example: gristmill verify quickstart")
def verify(
    ref: Annotated[
        str | None, typer.Argument(metavar="[REF]", help="A snapshot; without one, all of them.")
    ] = None,
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Read every file that a snapshot needs and compare its checksum."""
    with command(as_json=json, verbose=verbose, quiet=quiet) as output:
        from flows.upkeep import verify_lake  # late

        verify_lake(output, lake, ref)


@app.command(epilog="Example: gristmill gc --dry-run")
def gc(
    lake: LakeOption = DEFAULT_LAKE,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go, remove nothing.")
    ] = False,
    min_age_hours: Annotated[
        float,
        typer.Option("--min-age", min=0.0, metavar="HOURS", help="Spare what is younger."),
    ] = 24.0,
    purge: Annotated[
        bool,
        typer.Option(
            "--purge", help="Also remove the bytes of forgotten documents, and snapshots with them."
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --purge: do not ask.")] = False,
    json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Remove files that no snapshot, run or unfinished build needs."""
    with command(as_json=json, verbose=verbose, quiet=quiet) as output:
        from flows.upkeep import collect_lake  # late

        collect_lake(
            output,
            lake,
            dry_run=dry_run,
            min_age_s=min_age_hours * 3600,
            purge=purge,
            yes=yes,
        )


@app.command(epilog="Example: gristmill up quickstart --now")
def up(
    recipes: Annotated[
        list[str],
        typer.Argument(metavar="RECIPE...", help="TOML files, or names of shipped recipes."),
    ],
    lake: LakeOption = DEFAULT_LAKE,
    now: Annotated[
        bool, typer.Option("--now", help="Build at once, not only on schedule.")
    ] = False,
    host: Annotated[
        str,
        typer.Option(
            "--host", help="Address to listen on; by default other machines do not reach it."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Of server and UI.")] = 4200,
    origin: Annotated[
        list[str] | None,
        typer.Option(
            "--origin",
            metavar="URL",
            help="Where browsers may find it, too, such as https://mill.example.org behind a proxy.",
        ),
    ] = None,
    database: Annotated[
        str,
        typer.Option(
            "--database",
            envvar="GRISTMILL_DATABASE",
            metavar="URL",
            help="Of Prefect: postgresql+asyncpg://...; default: SQLite in the lake.",
        ),
    ] = "",
    json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Run a site: Prefect server and UI, worker, schedules, and training on fresh snapshots."""
    with command(as_json=json, verbose=verbose, quiet=quiet) as output:
        from flows.site_commands import run_site  # late
        from flows.site_settings import SiteOptions  # late

        options = SiteOptions(host=host, port=port, database=database, origins=tuple(origin or ()))
        run_site(output, recipes, lake, options, build_now=now)


@app.command(epilog="Example: gristmill down --lake /srv/lake")
def down(
    lake: LakeOption = DEFAULT_LAKE,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            min=1.0,
            metavar="SECONDS",
            help="Time to end in order; what is left then is killed.",
        ),
    ] = 120.0,
    json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Stop the site of a lake; running work stops in order, and the next 'up' goes on with it."""
    with command(as_json=json, verbose=verbose, quiet=quiet) as output:
        from flows.site_commands import stop_site  # late

        stop_site(output, lake, timeout_s=timeout)


@app.command(epilog="Example: gristmill status --json")
def status(
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show what the site of a lake does: deployments, their last and next runs."""
    with command(as_json=json, verbose=verbose, quiet=quiet) as output:
        from flows.site_commands import show_status  # late

        show_status(output, lake)


@app.command(epilog="Example: gristmill doctor --lake s3://bucket/lake")
def doctor(
    lake: LakeOption = DEFAULT_LAKE,
    json: JsonOption = False,
    verbose: VerboseOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check this installation: versions, lake, processor, memory, disk, Prefect."""
    with command(as_json=json, verbose=verbose, quiet=quiet) as output:
        from flows.doctor import report_health  # late

        report_health(output, lake)


def main() -> None:
    """Entry point of `gristmill`."""
    _speak_utf8()
    app()


def _speak_utf8() -> None:
    """Start again in Python's UTF-8 mode under a locale of another encoding, so that it decides no name and no text.

    Processes that are started from here inherit the mode.
    """
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


if __name__ == "__main__":
    main()
