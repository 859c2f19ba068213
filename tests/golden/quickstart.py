"""What the quick-start comes to: the hash of its snapshot and its first 20 losses.

    python tests/golden/quickstart.py > tests/golden/quickstart.json

refreshes the golden file; do so only in a commit that explains the change.
"""

import json
import sys
import tempfile
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from flows.recipe import find_recipe, load_recipe
from model.train import train
from pipeline.build import build
from storage.catalog import resolve
from storage.lake import Lake

PACKAGES = (
    "py3langid",
    "ftfy",
    "resiliparse",
    "fastwarc",
    "sentencepiece",
    "numpy",
    "pyarrow",
    "torch",
)
"""Packages whose versions may move the figures."""


def quickstart() -> dict[str, Any]:
    """Build the shipped corpus and train 20 small steps in fp32, which is the same to 1e-3 on any processor."""
    recipe = load_recipe("quickstart")
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake.open(folder)
        built = build(recipe.build, lake, root=find_recipe("quickstart").parent)
        losses: list[float] = []
        settings = replace(
            recipe.train,
            steps=20,
            warmup_steps=5,
            batch_tokens=1024,
            precision="fp32",
            device="cpu",
            final_eval_tokens=2048,
        )
        train(
            resolve(lake, "quickstart"),
            lake,
            settings,
            on_step=lambda row: losses.append(row["loss"]),
        )
    return {
        "hash": built.hash,
        "documents": built.documents,
        "tokens": built.tokens,
        "losses": [round(loss, 4) for loss in losses],
        "versions": {package: version(package) for package in PACKAGES},
    }


if __name__ == "__main__":
    json.dump(quickstart(), sys.stdout, indent=1)
    print()
