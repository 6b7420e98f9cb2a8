"""`shortlist doctor`: versions, backends, GPUs and what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from shortlist.cli.options import JsonOption, print_result

PACKAGES = (
    "numpy",
    "polars",
    "pyarrow",
    "safetensors",
    "msgspec",
    "pydantic",
    "typer",
    "rich",
    "starlette",
    "granian",
    "onnxruntime",
    "matplotlib",
    "keras",
    "keras-rs",
    "jax",
    "tensorflow",
    "tensorflow-cpu",
    "torch",
)
EXPORTERS = {"jax": "jax2onnx", "tensorflow": "tf2onnx", "torch": "onnx"}
DEFAULT_PORT = 8000


def doctor(json: JsonOption = False) -> None:
    """Show versions, backends, GPUs, compiler, ports and disk, and what is missing."""
    report = inspect_machine()
    lines = [f"{name}: {value}" for name, value in _flat(report)]
    print_result(report, "\n".join(lines), json)


def inspect_machine() -> dict[str, Any]:
    """Everything `doctor` shows, as plain JSON values."""
    from shortlist import native
    from shortlist.backend import BACKENDS, choose_backend
    from shortlist.processors import (
        allowed_processors,
        group_quota,
        usable_processors,
    )
    from shortlist.public_data.logs import cache_folder

    backends = [name for name in BACKENDS if importlib.util.find_spec(name)]
    report = {
        "shortlist": importlib.metadata.version("shortlist"),
        "python": f"{platform.python_version()} ({sys.executable})",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "processors": {
            "used": usable_processors(),
            "affinity": allowed_processors(),
            "cgroup_quota": group_quota(),
        },
        "packages": _versions(),
        "backends": {
            "installed": backends,
            "chosen": choose_backend(),
            "exporters": {n: _is_there(EXPORTERS[n]) for n in backends},
        },
        "gpus": _gpus(backends),
        "gpu_memory": _memory_growth(),
        "native_core": native.is_native(),
        "compiler": _first_line(["c++", "--version"]),
        "port": {str(DEFAULT_PORT): "free" if _is_free(DEFAULT_PORT) else "taken"},
        "disk_free_gb": {
            "here": _free_gb(Path.cwd()),
            "cache": _free_gb(cache_folder()),
        },
    }
    report["missing"] = _missing(report)
    return report


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _gpus(backends: list[str]) -> list[str]:
    """Names of the GPUs from nvidia-smi; loading a backend would take seconds."""
    if not backends or shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(
        ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return listed.stdout.splitlines() if listed.returncode == 0 else []


def _memory_growth() -> dict[str, str]:
    """How each backend allocates GPU memory: at the start, or as needed."""
    fraction = os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.75")
    preallocate = os.environ.get("XLA_PYTHON_CLIENT_PREALLOCATE", "true")
    growth = os.environ.get("TF_FORCE_GPU_ALLOW_GROWTH", "false")
    at_once = preallocate.lower() not in ("false", "0")
    return {
        "jax": f"takes {fraction} of it at once (XLA_PYTHON_CLIENT_PREALLOCATE=false"
        " to grow)"
        if at_once
        else "grows (XLA_PYTHON_CLIENT_PREALLOCATE)",
        "tensorflow": "grows (TF_FORCE_GPU_ALLOW_GROWTH)"
        if growth.lower() == "true"
        else "takes all at once (TF_FORCE_GPU_ALLOW_GROWTH=true to grow)",
        "torch": "grows",
    }


def _first_line(command: list[str]) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    shown = subprocess.run(
        command, capture_output=True, text=True, timeout=20, check=False
    )
    return shown.stdout.partition("\n")[0] or None


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_gb(path: Path) -> float:
    while not path.exists():
        path = path.parent
    return round(shutil.disk_usage(path).free / 1e9, 1)


def _missing(report: dict[str, Any]) -> list[str]:
    missing = []
    if not report["backends"]["installed"]:
        missing.append("a Keras backend, for training: pip install 'shortlist[jax]'")
    for name, there in report["backends"]["exporters"].items():
        if not there:
            missing.append(
                f"the ONNX exporter of {name}, for export: pip install"
                f" 'shortlist[{name}]'"
            )
    if "onnxruntime" not in report["packages"] or "granian" not in report["packages"]:
        missing.append("the server: pip install 'shortlist[serve]'")
    if "matplotlib" not in report["packages"]:
        missing.append("plots, for check --html: pip install 'shortlist[plots]'")
    if not report["native_core"]:
        missing.append(
            "the compiled core: install a C++17 compiler and reinstall shortlist"
        )
    return missing


def _flat(report: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    lines: list[tuple[str, Any]] = []
    for name, value in report.items():
        if isinstance(value, dict) and value:
            lines += _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            shown = "; ".join(str(entry) for entry in value) or "none"
            lines.append((prefix + name, shown))
        else:
            lines.append((prefix + name, "none" if value in (None, {}) else value))
    return lines
