"""What changed in a recipe, in lines that name the key."""

from typing import Any

from flows.changes import MAX_CHANGES, recipe_changes


def recipe(**sections: Any) -> dict[str, Any]:
    """A manifest's recipe."""
    sources = [{"name": "poems", "path": "poems/*.txt"}, {"name": "talk", "path": "talk.jsonl"}]
    return {"name": "x", "dedup": {"threshold": 0.7, "ngram": 5}, "sources": sources} | sections


def test_same_recipe_has_no_changes() -> None:
    """Equal is equal."""
    assert recipe_changes(recipe(), recipe()) == []


def test_changed_key_is_named_as_in_the_recipe() -> None:
    """With what it was and what it is."""
    now = recipe(dedup={"threshold": 0.8, "ngram": 5})
    assert recipe_changes(recipe(), now) == ["dedup.threshold 0.7 -> 0.8"]


def test_sources_are_told_apart_by_name() -> None:
    """One that comes first shifts no other; one that came or went is shown by its path."""
    poems, talk = recipe()["sources"]
    books = {"name": "books", "path": "books/**"}
    now = recipe(sources=[books, {**poems, "path": "verse/*.txt"}])
    assert recipe_changes(recipe(), now) == [
        'sources.books none -> "books/**"',
        'sources.poems.path "poems/*.txt" -> "verse/*.txt"',
        'sources.talk "talk.jsonl" -> none',
    ]
    other_order = recipe(sources=[talk, poems])
    assert recipe_changes(recipe(), other_order) == ['sources in another order: ["talk", "poems"]']


def test_many_and_long_changes_stay_short() -> None:
    """A card is no place for a page of values."""
    long = {f"key{number:03}": "x" * 1000 for number in range(MAX_CHANGES + 7)}
    lines = recipe_changes(recipe(), recipe(section=long))
    assert max(map(len, lines)) < 200
    lines = recipe_changes(recipe(section=dict.fromkeys(long)), recipe(section=long))
    assert len(lines) == MAX_CHANGES + 1
    assert lines[-1] == "and 7 more"
