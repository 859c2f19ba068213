"""A recipe is read as it is written, or refused in words that say what to change."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from flows.config import Recipe
from flows.recipe import decode_section, find_recipe, load_recipe, shipped_recipes
from pipeline.dedup import DedupConfig
from pipeline.raw import ReadLimits
from storage.errors import ConfigError, InputError

MINIMAL = 'name = "tiny"\n[[sources]]\npath = "texts"\n'


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe that sets nothing but what it must."""
    path = tmp_path / "tiny.toml"
    path.write_text(MINIMAL)
    return path


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "written.toml"
    path.write_text(text)
    return str(path)


def scalar_defaults() -> Iterator[tuple[str, Any]]:
    """Dotted key and default of every field of every section that holds text, a number or true/false."""
    sections = get_type_hints(Recipe)
    sections |= get_type_hints(sections.pop("build"))
    for section, type_ in sections.items():
        if not dataclasses.is_dataclass(type_):
            continue
        for field in dataclasses.fields(type_):
            if isinstance(field.default, str | int | float):
                yield f"{section}.{field.name}", field.default


DEFAULTS = dict(scalar_defaults())


def test_every_section_has_keys_to_test() -> None:
    """The property tests below really see the sections."""
    assert {"dedup.threshold", "tokenizer.vocab_size", "train.seed"} <= DEFAULTS.keys()


@pytest.mark.parametrize("key", DEFAULTS)
def test_set_is_the_same_as_writing_it(key: str, recipe: Path, tmp_path: Path) -> None:
    """`--set section.key=value` gives the recipe that has it in its file; the default changes nothing."""
    section, name = key.split(".")
    value = json.dumps(DEFAULTS[key])  # TOML writes these scalars as JSON does
    in_file = load_recipe(written(tmp_path, f"{MINIMAL}\n[{section}]\n{name} = {value}\n"))
    assert in_file == load_recipe(str(recipe), [f"{key}={value}"]) == load_recipe(str(recipe))


@pytest.mark.parametrize("key", [key for key in DEFAULTS if len(key.split(".")[1]) > 4])
def test_misspelt_key_is_refused_with_the_right_one(key: str, recipe: Path) -> None:
    """One letter left out of any key: the message names the option, and the key that was meant."""
    section, name = key.split(".")
    wrong = f"{section}.{name[:2]}{name[3:]}"
    with pytest.raises(ConfigError, match=r"unknown key; did you mean '") as refused:
        load_recipe(str(recipe), [f"{wrong}=1"])
    assert str(refused.value).startswith(f"--set {wrong}=1: {wrong}: ")
    assert f"'{section}." in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("treshold = 1", r"written.toml: treshold: unknown key; did you mean 'dedup.threshold'\?"),
        (
            "threshold = 1",
            r"written.toml: threshold: unknown key; did you mean 'dedup.threshold'\?",
        ),
        ("[dedupe]\nthreshold = 1", r"dedupe: unknown key; did you mean 'dedup'\?"),
        ("[dedup]\ntreshold = 1", r"dedup.treshold: unknown key; did you mean 'dedup.threshold'\?"),
        ("[dedup]\nxyz = 1", r"dedup.xyz: unknown key; known here: .*threshold"),
        ("[trian]\nsteps = 3", r"trian: unknown key; did you mean 'train'\?"),
        ('[dedup]\nthreshold = "high"', r'dedup.threshold: expected a number, got "high"'),
        ("[dedup]\nenabled = 1", r"dedup.enabled: expected true or false, got 1"),
        ("[tokenizer]\nvocab_size = 4096.5", r"vocab_size: expected a whole number, got 4096.5"),
        ("[tokenizer]\nvocab_size = true", r"vocab_size: expected a whole number, got true"),
        (
            '[language]\nkeep = "en"',
            r'language.keep: expected a list, such as \["a", "b"\], got "en"',
        ),
        ("[mix]\nweights = 3", r"mix.weights: expected a table, such as \{ poetry = 1.0 \}, got 3"),
        ('[mix.weights]\npoetry = "a lot"', r"mix.weights.poetry: expected a number, got"),
        ("dedup = 3", r"dedup: expected a table of keys, got 3"),
        ("[dedup]\nthreshold = 7.0", r"written.toml: dedup.threshold: expected"),
        ("[dedup]\nthreshold = 1979-05-27", r"dedup.threshold: expected a number, got \"1979"),
        ("[schedule]\ncron = '0 2 * * *'", r"schedule: unknown key; did you mean 'schedules'\?"),
        ("[[schedules]]\ncrn = 'daily'", r"schedules\[0\].crn: unknown key; did you mean"),
        ("a = 1\nb = 2", r"(?s)a: unknown key.*b: unknown key"),
        ("[dedup\n", r"written.toml: not valid TOML: .*line"),
        ("a = " + "[" * 5000, r"written.toml: not a recipe: nested too deeply"),
    ],
)
def test_wrong_recipe_is_refused_in_plain_words(text: str, message: str, tmp_path: Path) -> None:
    """Each message has the file, the dotted key, what was expected and what came."""
    at_top = MINIMAL if text.startswith(("[", "a = [")) else f"{text}\n{MINIMAL}"
    path = written(tmp_path, at_top if at_top != MINIMAL else f"{MINIMAL}\n{text}\n")
    with pytest.raises(ConfigError, match=message) as refused:
        load_recipe(path)
    assert "build" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "x"', r"sources: missing; the corpus needs at least one \[\[sources\]\]"),
        ('[[sources]]\npath = "x"', r"name: missing; the corpus needs a name"),
        ('name = "x"\nsources = []', r"at least one \[\[sources\]\]"),
        ('name = "x"\nsources = "texts"', r"sources: expected a list of tables"),
        (
            'name = "x"\n[[sources]]\npth = "t"',
            r"sources\[0\].pth: unknown key; did you mean 'sources\[0\].path'",
        ),
        (
            'name = "x"\n[[sources]]\npath = "t"\nreader = "jsnl"',
            r"expected one of .* did you mean 'jsonl'\?",
        ),
        ('name = 3\n[[sources]]\npath = "t"', r"name: expected text in quotes, got 3"),
    ],
)
def test_incomplete_recipe_says_what_is_missing(text: str, message: str, tmp_path: Path) -> None:
    """A name and a source are all that a recipe needs."""
    with pytest.raises(ConfigError, match=message):
        load_recipe(written(tmp_path, text))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dedup.threshold", r"--set dedup.threshold: expected key=value"),
        ("=1", r"expected key=value"),
        ("dedup..threshold=1", r"expected key=value"),
        ("name.first=x", r"'name' is a value and has no keys"),
        ("sources.7.path=x", r"expected a number from 0 to 0 in 'sources.7', got '7'"),
        ("sources.first.path=x", r"got 'first'"),
        (
            "dedup.threshold=high",
            r"--set dedup.threshold=high: dedup.threshold: expected a number, got \"high\"",
        ),
        ("dedup.threshold=7", r"--set dedup.threshold=7: dedup.threshold: expected"),
    ],
)
def test_wrong_override_is_refused(override: str, message: str, recipe: Path) -> None:
    """The message points at the option, not at the file."""
    with pytest.raises(ConfigError, match=message):
        load_recipe(str(recipe), [override])


def test_a_check_of_two_keys_names_the_override_of_either(recipe: Path) -> None:
    """What the file says may be wrong only because of what an option says."""
    with pytest.raises(ConfigError) as refused:
        load_recipe(
            str(recipe), ["train.batch_tokens=1000", "train.steps=20", "train.warmup_steps=21"]
        )
    assert str(refused.value).startswith(
        "--set train.batch_tokens=1000: train.batch_tokens: expected"
    )
    with pytest.raises(ConfigError) as refused:
        load_recipe(str(recipe), ["dedup.bands=60", "train.seed=4"])
    assert str(refused.value).startswith(
        f"{recipe} with --set dedup.bands=60: dedup.bands x dedup.rows: expected"
    )


@pytest.mark.parametrize(
    ("file", "option", "key", "value"),
    [
        ("", "train.steps=12", "warmup_steps", 1),
        ("steps = 1600\nwarmup_steps = 100", "train.steps=48", "warmup_steps", 3),
        ("steps = 1600\nwarmup_steps = 100", "train.steps=800", "warmup_steps", 100),
        ('schedule = "wsd"\ndecay_steps = 400', "train.steps=300", "decay_steps", 120),
        ('schedule = "wsd"\ndecay_steps = 400', 'train.schedule="cosine"', "decay_steps", None),
        ("lr = 1e-3\nmin_lr = 1e-4", "train.lr=1e-5", "min_lr", 1e-6),
        ("", "train.seq_len=100", "batch_tokens", 8100),
        ("batch_tokens = 256", "train.seq_len=512", "batch_tokens", 512),
        ("batch_tokens = 256", "train.preset=20m", "batch_tokens", 512),
        ("micro_batch_size = 4", "train.batch_tokens=1536", "micro_batch_size", None),
    ],
)
def test_an_override_makes_room_for_itself(
    file: str, option: str, key: str, value: object, tmp_path: Path
) -> None:
    """What it contradicts gives way and is told; what fits stays as it is."""
    path, told = written(tmp_path, f"{MINIMAL}\n[train]\n{file}\n"), []
    train = load_recipe(path, [option], told.append).train
    assert getattr(train, key) == (pytest.approx(value) if isinstance(value, float) else value)
    changed = f"train.{key} = " in "".join(told)
    assert changed == (getattr(load_recipe(path).train, key) != getattr(train, key))


@pytest.mark.parametrize(
    ("file", "option"),
    [
        ('[dedup]\npolicy = "rebuild"', "dedup.enabled=false"),
        ("[dedup]\ntemplate_share = 0.1", "dedup.enabled=false"),
        ('[language]\nkeep = ["en"]', "language.detect=false"),
        ('[on_snapshot]\napproval = "ask"', "on_snapshot.train=false"),
        ("", "decontaminate.ngram=3"),
    ],
)
def test_turning_off_needs_no_second_option(file: str, option: str, tmp_path: Path) -> None:
    """Keys that have no effect any more are none of the user's business; two options that quarrel are."""
    path, told = written(tmp_path, f"{MINIMAL}\n{file}\n"), []
    load_recipe(path, [option], told.append)
    assert told
    with pytest.raises(ConfigError):
        load_recipe(path, ["train.steps=3", "train.warmup_steps=4"])


@pytest.mark.parametrize(
    "override",
    ["dedup.threshold=0.5", "dedup.hash=sha1", "dedup.treshold=1", "dedup.threshold=7",
     "dedup.threshold=high", "dedup.hash=sha2", "dedup.rows.x=1", "dedup.threshold"],
)  # fmt: skip
def test_a_section_alone_is_decoded_as_in_a_recipe(override: str, recipe: Path) -> None:
    """The same values and the same messages."""

    def outcome(decode: Callable[[], DedupConfig]) -> DedupConfig | str:
        try:
            return decode()
        except ConfigError as error:
            return str(error)

    in_recipe = outcome(lambda: load_recipe(str(recipe), [override]).build.dedup)
    assert outcome(lambda: decode_section("dedup", DedupConfig, [override])) == in_recipe
    assert isinstance(in_recipe, DedupConfig) or in_recipe.startswith(f"--set {override}: ")
    limits = decode_section("read", ReadLimits, [], {"max_document_bytes": 7})
    assert limits == ReadLimits(max_document_bytes=7)


def test_overrides_take_the_type_of_their_key(recipe: Path) -> None:
    """Text needs no quotes, not even text that looks like a number; lists, tables and list items work."""
    loaded = load_recipe(
        str(recipe),
        [
            "name=2026",
            "sources.0.domain=poetry",
            'language.keep=["en", "de"]',
            "mix.weights.poetry=2",
            "train.seed=7",
        ],
    )
    assert loaded.build.name == "2026"
    assert loaded.build.sources[0].domain == "poetry"
    assert loaded.build.language.keep == ("en", "de")
    assert loaded.build.mix.weights == {"poetry": 2.0}
    assert loaded.train.seed == 7


def test_later_override_wins(recipe: Path) -> None:
    """Overrides apply in order."""
    assert load_recipe(str(recipe), ["train.seed=1", "train.seed=2"]).train.seed == 2


def test_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    """Some editors write one."""
    path = tmp_path / "bom.toml"
    path.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert load_recipe(str(path)).build.name == "tiny"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "expected UTF-8 text, got byte 0xff at offset 0"),
        (b"#" * (1 << 20) + b"##", "expected a recipe"),
    ],
)
def test_file_that_is_no_recipe(content: bytes, message: str, tmp_path: Path) -> None:
    """A binary or huge file given by mistake is refused by name."""
    path = tmp_path / "file.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_recipe(str(path))


def test_recipes_are_found_by_name_path_and_folder(recipe: Path) -> None:
    """A shipped name, a file, or a folder with recipe.toml; a near miss is suggested."""
    assert find_recipe("quickstart") == shipped_recipes()["quickstart"]
    assert find_recipe(str(recipe)) == recipe
    folder = recipe.parent / "folder"
    folder.mkdir()
    (folder / "recipe.toml").write_text(MINIMAL)
    assert find_recipe(str(folder)) == folder / "recipe.toml"
    with pytest.raises(InputError, match=r"no recipe 'quikstart': .*did you mean 'quickstart'\?"):
        find_recipe("quikstart")
    with pytest.raises(InputError, match="expected a recipe"):
        find_recipe("/dev/null")


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_sound(name: str) -> None:
    """Every recipe that comes along loads, and its paths are in its folder."""
    loaded = load_recipe(name)
    root = find_recipe(name).parent
    assert loaded.build.sources
    assert all(not Path(source.path).is_absolute() for source in loaded.build.sources)
    assert all(any(root.glob(source.path)) for source in loaded.build.sources)
