"""What a test's VM is: from pyproject.toml or pytest.ini, the command line, markers, and the call itself; the later wins."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Optional, Union

import pytest

MARKER = "vm"
IMAGE, OPTIONS, ARTEFACTS, KEEP = "vm_image", "vm_options", "vm_artefacts", "vm_keep"
# What tells how a VM starts; without any of them it is a fork of a template whose guest agent answers.
STARTS = ("warm", "from_", "ephemeral", "restore", "state", "wait")
FIRST_CONDITION = "agent"


def add_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("vmrun", "virtual machines of tests (vmrun)")
    group.addoption("--vm-image", metavar="IMAGE", help="image of the VMs of tests that name none")
    group.addoption("--vm-artefacts", metavar="DIR", help="folder for what is kept of the VMs of failed tests")
    group.addoption("--vm-keep", action="store_true", help="leave the VMs of failed tests running, and tell how to get in")
    # as a value: pytest 9 takes a type there, too, and mypy takes the word for one
    lines: Any = "linelist"
    parser.addini(IMAGE, "image of the VMs of tests that name none; relative to this file", default=None)
    parser.addini(OPTIONS, "options of the VMs of tests, one KEY=VALUE a line (KEY alone: true)", type=lines, default=[])
    parser.addini(ARTEFACTS, "folder for what is kept of the VMs of failed tests", default="vm-artefacts")


def base(config: pytest.Config) -> Path:
    """What relative paths of settings are relative to."""
    return config.inipath.parent if config.inipath else config.rootpath


def artefacts_folder(config: pytest.Config) -> Path:
    told = config.getoption("--vm-artefacts")
    if told:
        return Path(config.invocation_params.dir, told)
    return base(config) / str(config.getini(ARTEFACTS))


def is_kept(config: pytest.Config) -> bool:
    return bool(config.getoption("--vm-keep"))


def of_config(config: pytest.Config) -> Dict[str, Any]:
    options = parsed(config.getini(OPTIONS))
    image = config.getini(IMAGE)
    if image:
        options["image"] = str(base(config) / image)
    told = config.getoption("--vm-image")
    if told:
        options["image"] = str(Path(config.invocation_params.dir, told))
    return options


def of_markers(item: pytest.Item) -> Dict[str, Any]:
    """The nearest marker wins."""
    options: Dict[str, Any] = {}
    for marker in reversed(list(item.iter_markers(MARKER))):
        if len(marker.args) > 1:
            raise pytest.UsageError(f"{item.nodeid}: @pytest.mark.vm takes one image, and keywords")
        options.update(marker.kwargs)
        if marker.args:
            options["image"] = marker.args[0]
    if "image" in options and options["image"] is not None:
        options["image"] = str(base(item.config) / options["image"])
    return options


def parsed(lines: List[str]) -> Dict[str, Any]:
    """`KEY=VALUE`, `KEY`; a key that comes again makes a list."""
    options: Dict[str, Any] = {}
    for line in lines:
        key, equals, text = line.partition("=")
        key = key.strip().replace("-", "_")
        key = "from_" if key == "from" else key
        value: Union[bool, str] = text.strip() if equals else True
        if isinstance(value, str) and value.lower() in ("true", "false"):
            value = value.lower() == "true"
        if key in options:
            before = options[key]
            options[key] = (before if isinstance(before, list) else [before]) + [value]
        else:
            options[key] = value
    return options


def resolved(config: pytest.Config, *more: Dict[str, Any]) -> Dict[str, Any]:
    """The arguments of `launch`."""
    options = of_config(config)
    for some in more:
        options.update(some)
    if not any(name in options for name in STARTS):
        options["warm"] = FIRST_CONDITION
    if options.get("warm") in (None, False):
        options.pop("warm", None)
        # a test's VM leaves the image as it is
        if not any(options.get(name) for name in ("from_", "restore", "state")):
            options.setdefault("ephemeral", True)
    if options.get("image") is None and not any(options.get(name) for name in ("from_", "restore", "kernel")):
        raise pytest.UsageError(
            f"the test's VM has no image: set {IMAGE} in the settings of pytest, or use --vm-image or @pytest.mark.vm(image=...)"
        )
    return options


def folder_of(item: pytest.Item) -> Path:
    """A test's own folder for artefacts."""
    plain = "".join(char if char.isalnum() or char in "-_.[]" else "-" for char in item.nodeid.replace("::", "--"))
    return artefacts_folder(item.config) / plain.strip(".-")[:200]


def describe(options: Dict[str, Any]) -> Optional[str]:
    return options.get("image") or options.get("from_") or options.get("restore")
