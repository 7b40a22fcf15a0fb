"""What this processor computes well. Read once, from the kernel's own list of flags."""

from __future__ import annotations

import functools
import platform
from pathlib import Path


@functools.cache
def flags() -> frozenset[str]:
    """The processor's feature flags (x86: ``flags``, ARM: ``Features``); empty where /proc/cpuinfo does not exist."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def is_x86() -> bool:
    """Whether this is a 64-bit x86 processor."""
    return platform.machine() in ("x86_64", "AMD64")


def has_avx2() -> bool:
    """x86 with AVX2: oneDNN's fp32 kernels and DeepSpeed's shared-memory fp32 reduction need it."""
    return is_x86() and "avx2" in flags()


def has_fast_bf16() -> bool:
    """Whether bf16 matrix products run in hardware; elsewhere torch emulates them, linear in the number of rows."""
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & flags())


def has_fast_int8_weights() -> bool:
    """Whether torch's weight-only int8 product is vectorised here (AVX2, AVX-512, NEON) rather than scalar code."""
    return has_avx2() or platform.machine() in ("aarch64", "arm64")
