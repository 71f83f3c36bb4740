"""Where a model's weights go and in which type, known before they are read; torch is asked only where it must be."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from specdraft.errors import ConfigError, ModelError
from specdraft.models.files import ModelFiles, reading
from specdraft.models.spec import ModelSpec

if TYPE_CHECKING:
    import torch

DRIVERS = ("libcuda.so.1",)  # without one torch finds no CUDA device, nor without the next one a ROCm device
SERVED = "served"  # device and type of a model behind a server: what they are, only the server knows
ROCM = Path("/dev/kfd")


def device_type(spec: ModelSpec) -> str:
    """`cpu`, `cuda` or the like; raises `ConfigError` for a device that is not there."""
    if spec.served:
        return SERVED
    if spec.device == "cpu" or ((spec.spread or spec.device == "auto") and _cpu_only()):
        return "cpu"
    return resolve_device(spec).type


def _cpu_only() -> bool:
    """Whether it is certain that torch would find no GPU; where torch is there already, it is asked."""
    return "torch" not in sys.modules and sys.platform == "linux" and not _driver()


@cache
def _driver() -> bool:
    return ROCM.exists() or any(map(_loads, DRIVERS))


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def gpu_names() -> list[str]:
    """The GPUs that torch finds."""
    if _cpu_only():
        return []
    import torch

    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


def thread_count() -> int:
    """How many threads of the processor forwards have; before torch is there: `OMP_NUM_THREADS`, else one for each
    physical core."""
    if "torch" not in sys.modules:
        cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
        said = os.environ.get("OMP_NUM_THREADS", str(cores))
        if said.isdecimal():
            return max(1, int(said))
    import torch

    return torch.get_num_threads()


def resolve_device(spec: ModelSpec) -> torch.device:
    """The device that a spec means; raises `ConfigError` for one that is not there."""
    import torch

    if spec.spread or spec.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(spec.device)
    except RuntimeError as error:
        raise ConfigError(
            f"device={spec.device!r} is not a device; expected auto, cpu, cuda, cuda:N or spread"
        ) from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device={spec.device}: this machine has {torch.cuda.device_count()} CUDA devices")
    if device.type not in ("cpu", "cuda", _accelerator()):
        raise ConfigError(
            f"device={spec.device}: this machine has no {device.type} device to compute on; expected auto, cpu, cuda, "
            "cuda:N or spread"
        )
    return device


def cards() -> list[torch.device]:
    """The GPUs that torch finds, as a model can be divided over them."""
    import torch

    return [torch.device("cuda", number) for number in range(torch.cuda.device_count())]


def cards_of(spec: ModelSpec) -> list[torch.device]:
    """The first ones, as many as a model is divided over. Raises `ConfigError` where there are fewer."""
    there, asked = cards(), spec.cards or 0
    if asked > len(there):
        raise ConfigError(
            f"{spec.path}: a model over {asked} graphics cards (resources.target.gpus={asked}, or "
            f"device=spread:{asked}): here {'is' if len(there) == 1 else 'are'} {len(there)}"
        )
    return there[:asked]


def device_of(files: ModelFiles) -> torch.device:
    """Where a model is, or will be once it is loaded."""
    if files.in_memory is not None:
        device: torch.device = files.in_memory.device
        return device
    return resolve_device(files.spec)


def device_type_of(files: ModelFiles) -> str:
    """The type of `device_of`; torch is asked only where it must be."""
    return device_type(files.spec) if files.in_memory is None else device_of(files).type


def _accelerator() -> str | None:
    """The kind of device beside the CPU that this build of torch finds here."""
    import torch

    found = torch.accelerator.current_accelerator(check_available=True)
    return None if found is None else found.type


def dtype_name(files: ModelFiles) -> str:
    """The weights' type: what the spec says, else float32 on a CPU and a 16-bit type on a GPU."""
    if files.in_memory is not None:
        return str(files.in_memory.dtype).removeprefix("torch.")
    if files.spec.served:
        return SERVED
    if files.spec.dtype != "auto":
        return files.spec.dtype
    if device_type(files.spec) == "cpu":
        return "float32"
    import torch

    bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return "float16" if files.stored_dtype == "float16" or not bfloat16 else "bfloat16"


def dtype_label(files: ModelFiles) -> str:
    """The weights' type as the `dtype` column says it; `4bit` or `8bit` for quantised ones."""
    return dtype_name(files) if files.spec.quantize == "none" else str(files.spec.quantize)


def dtype_of(files: ModelFiles) -> torch.dtype:
    """`dtype_name` as torch has it."""
    import torch

    dtype: torch.dtype = getattr(torch, dtype_name(files))
    return dtype


def check_loadable(files: ModelFiles) -> None:
    """What loading needs beside the files: the device, and the libraries for its placement, quantisation and attention.

    Raises:
        ConfigError: the device is not there, or its kind has no such attention.
        ModelError: a library is missing.
    """
    kind = device_type(files.spec)
    if files.in_memory is not None or files.spec.served:
        return
    if files.spec.attention == "triton":
        _check_kernel(files.spec.path, kind)
    needs = {"accelerate": files.spec.spread or files.spec.quantize != "none"}
    needs["bitsandbytes"] = files.spec.quantize != "none"
    if missing := [name for name, needed in needs.items() if needed and find_spec(name) is None]:
        asked = f"quantize={files.spec.quantize}" if files.spec.quantize != "none" else f"device={files.spec.device}"
        raise ModelError(
            f"{files.spec.path}: {asked} needs {' and '.join(missing)} (install the extra: "
            f"pip install 'specdraft[{'quantize' if files.spec.quantize != 'none' else 'spread'}]')"
        )
    if files.quantised:
        _check_quantizer(files)


def _check_kernel(path: str, kind: str) -> None:
    if find_spec("triton") is None:
        raise ModelError(f"{path}: attention=triton: triton is not installed")
    import triton

    if kind != "cuda" and not triton.knobs.runtime.interpret:
        raise ConfigError(f"{path}: attention=triton needs a GPU; expected own or grouped on {kind}")


def _check_quantizer(files: ModelFiles) -> None:
    from transformers.quantizers import AutoHfQuantizer

    stored = files.config.get_text_config().quantization_config
    with reading(files.spec.path, "the weights are quantised, and what reads them is not here"):
        if AutoHfQuantizer.supports_quant_method(stored):
            quantizer = AutoHfQuantizer.from_config(stored, pre_quantized=True)
            quantizer.validate_environment(device_map=None, weights_only=True)
