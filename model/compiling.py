"""Compiled blocks: on 2 cores a step takes 0.7 of the time, after some 10 s of compiling; where it fails, nothing changes."""

import shutil
import warnings

import torch

from model.config import TrainConfig
from model.device import autocast
from model.gpt import GPT, Block

_LEAST_FLOP = 3e13
"""Arithmetic of a run, 6 * parameters * tokens, from which compiling pays: a minute and a half on 2 cores."""


def wants_compiled(config: TrainConfig, num_params: int, device: torch.device) -> bool:
    """Whether a run asks for compiled blocks, or is long enough for them and a compiler is there."""
    if config.compile != "auto":
        return config.compile
    if 6 * num_params * config.steps * config.batch_tokens < _LEAST_FLOP:
        return False
    return device.type != "cpu" or any(map(shutil.which, ("c++", "g++", "clang++")))


def compile_blocks(model: GPT, batch_size: int, dtype: torch.dtype) -> str:
    """Compile what runs a block, once for all of them, and try it; "" or, with the model as it was, why it failed.

    One graph serves all blocks, so compiling takes a sixth of the time that the whole model of six blocks would.
    """
    # More compile threads would be processes of 200 MB each, for one graph.
    model.run_block = torch.compile(Block.forward, dynamic=False, options={"compile_threads": 1})
    device = model.output_VC.device
    tokens_BT = torch.zeros(batch_size, model.config.seq_len, dtype=torch.long, device=device)
    try:
        with warnings.catch_warnings(), autocast(device, dtype):
            warnings.simplefilter("ignore")  # of the compiler's own modules
            model(tokens_BT).sum().backward()
    except Exception as error:  # whatever can be wrong with a compiler; eager blocks need none
        model.run_block = torch.nn.Module.__call__
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
    finally:
        model.zero_grad()
    return ""
