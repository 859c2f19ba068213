"""The recipe reference is what the code says."""

from pathlib import Path

from flows.reference import reference

REFERENCE = Path(__file__).parents[2] / "flows" / "recipes" / "REFERENCE.md"


def test_the_committed_reference_is_current() -> None:
    """`python -m flows.reference > flows/recipes/REFERENCE.md` would change nothing."""
    assert REFERENCE.read_text("utf8") == reference()


def test_every_key_has_a_meaning() -> None:
    """No key is left without a sentence."""
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    assert len(rows) > 50
    assert all(not row.endswith("|  |") for row in rows)
