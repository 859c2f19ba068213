"""The training card tells how a run stands, at every moment of it, in bounded size."""

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flows.training_card import TrainingStatus, training_card

from .rendered import seen

FOREIGN = st.text(min_size=1, max_size=60).filter(lambda text: text.strip())


def step(number: int, **changes: Any) -> dict[str, Any]:
    row = {"step": number, "loss": 8 / number, "lr": 1e-3, "grad_norm": 1.0, "tokens": 10 * number}
    return row | {"epoch": number / 100, "tokens_per_s": 500.0} | changes


def evaluation(number: int, bits: float = 2.0, domains: int = 2) -> dict[str, Any]:
    figures = {"bits_per_byte": bits, "unigram_bits_per_byte": 4.0, "tokens": 50}
    named = {f"domain-{i}": figures | {"bytes": i} for i in range(domains)}
    return {"step": number, "domains": named} | figures


def status(**changes: Any) -> TrainingStatus:
    told = {
        "run": "tiny-1-abc", "snapshot": "tiny@1", "state": "training", "step": 40, "steps": 100, "seconds_left": 90.0,
        "tokens_per_s": 500.0, "metrics": [step(i) for i in range(1, 41)], "evaluations": [evaluation(20), evaluation(40)],
        "samples": [{"step": 40, "prompt": "To be", "text": "To be or so"}], "config": {"steps": 100},
    }  # fmt: skip
    return TrainingStatus(**told | changes)


def test_a_run_in_progress_shows_how_far_it_is_and_how_well() -> None:
    card = training_card(status(note="Resumed from step 20."))
    _, text = seen(card)
    assert "tiny-1-abc: training" in text
    assert "Resumed from step 20." in text
    assert "40.0 % of 100 steps, 1 min 30 s left" in card  # the words of the bar's picture
    assert "tiny@1 400 0.40 500 0.200 2.000 4.000" in text
    assert "domain-1 2.000 4.000 50.0 % 50" in text
    assert "After To be :" in text.replace("To be:", "To be :")
    assert "40 or so" in text


def test_a_run_of_nothing_yet_has_a_card() -> None:
    """Before the first step, without validation documents, without samples."""
    for state in ("training", "finished", "stopped", "failed"):
        bare = TrainingStatus(run="r", snapshot="c@1", state=state, step=0, steps=0)
        assert "No step is done yet." in training_card(bare)


@given(FOREIGN, FOREIGN)
def test_what_the_model_writes_stays_text(text: str, prompt: str) -> None:
    def card(text: str, prompt: str) -> str:
        samples = [{"step": 40, "prompt": prompt, "text": prompt + text}]
        settings = {"sample_prompts": [prompt], "note": text}
        return training_card(status(samples=samples, note=text, config=settings))

    assert seen(card(text, prompt))[0] == seen(card("x", "y"))[0]


def test_size_is_bounded() -> None:
    """A long run with many domains and texts stays under 200 kB."""
    samples = [
        {"step": i, "prompt": f"{j}<" * 400, "text": "<|`" * 4000} for i in range(50) for j in range(9)
    ]  # fmt: skip
    huge = status(
        metrics=[step(i, loss=math.sin(i)) for i in range(1, 20_000)],
        evaluations=[evaluation(i, math.cos(i), domains=300) for i in range(1, 100)],
        samples=samples,
        config={"sample_prompts": ["`" * 3000] * 99},
    )
    assert len(training_card(huge).encode()) < 200_000


@given(st.floats(), st.floats(), st.floats())
def test_any_figures_make_a_card(loss: float, bits: float, speed: float) -> None:
    rows = [step(1), step(2, loss=loss, tokens_per_s=speed, lr=loss, grad_norm=speed)]
    card = training_card(
        status(metrics=rows, evaluations=[evaluation(1), evaluation(2, bits)], tokens_per_s=speed)
    )
    assert "nan" not in card.split("![")[0]
