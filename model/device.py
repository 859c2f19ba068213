"""Where tensors live and in which arithmetic: chosen once a run from its settings and the hardware."""

import ctypes

import torch

from model.config import TrainConfig
from storage.errors import ConfigError

_FORWARD_TOKENS = {"cpu": 4096, "cuda": 32768}
"""Tokens of a forward pass unless the recipe says otherwise. 4,096 was the fastest of 512 to 4,096 on 2 cores with the 5m
preset (1.0 GB in all); larger ones only need more memory."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def pick_device(config: TrainConfig) -> torch.device:
    """The device of a run. Raises ConfigError if it asks for a GPU and there is none."""
    has_gpu = torch.cuda.is_available()
    if config.device == "cuda" and not has_gpu:
        raise ConfigError("train.device: expected a CUDA GPU, PyTorch finds none; use auto or cpu")
    return torch.device("cuda" if has_gpu and config.device != "cpu" else "cpu")


def pick_dtype(config: TrainConfig, device: torch.device) -> torch.dtype:
    """Arithmetic of the matrix products: bfloat16 where it is asked for, or faster than float32."""
    if config.precision == "auto":
        return torch.bfloat16 if _has_bf16(device) else torch.float32
    return torch.bfloat16 if config.precision == "bf16" else torch.float32


def _has_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16; elsewhere it is emulated, many times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def product_dtype(like: torch.Tensor) -> torch.dtype:
    """Dtype in which a product with `like` runs here: that of autocast, if on."""
    kind = like.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else like.dtype


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Context in which matrix products run in `dtype`; weights stay float32."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def pick_micro_batch_size(
    batch_size: int, seq_len: int, config: TrainConfig, device: torch.device
) -> int:
    """Sequences a forward pass: the setting, else the largest divisor of the batch that the device takes well."""
    if config.micro_batch_size is not None:
        return config.micro_batch_size
    most = max(1, _FORWARD_TOKENS[device.type] // seq_len)
    return max(size for size in range(1, min(most, batch_size) + 1) if batch_size % size == 0)


def keep_freed_memory() -> None:
    """Have glibc keep what a step frees for the next one; without it each step takes and zeroes the same pages again.

    A step of the 2m preset takes 0.87 of the time on a CPU, and the peak of memory stays the same. It holds for the
    whole process. Elsewhere than under glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most that glibc takes
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
