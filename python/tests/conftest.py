"""What the tests have in common: images, and a runtime directory of their own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterator

import pytest

pytest_plugins = ["pytester"]

GREETING = "greetings from the boot sector"
# Prints what follows it to the first serial port, and halts with interrupts off: no shutdown is heard.
CODE = bytes.fromhex("fa 31c0 8ed8 be167c baf803 ac 84c0 7403 ee ebf8 f4 ebfd")


@pytest.fixture(scope="session", autouse=True)
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No VM of these tests is among those of the user."""
    folder = tmp_path_factory.mktemp("run")
    folder.chmod(0o700)
    patch = pytest.MonkeyPatch()
    patch.setenv("VMRUN_RUNTIME_DIR", str(folder))
    patch.setenv("VMRUN_ACCEL", "tcg")
    patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
    for variable in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        # pytester changes the home directory: templates are made once all the same
        if variable not in os.environ:
            patch.setenv(variable, str(tmp_path_factory.mktemp(variable.lower())))
    yield folder / "vmrun"
    left = sorted(path.name for path in (folder / "vmrun").glob("*"))
    patch.undo()
    assert left == [], "tests have left VMs"


@pytest.fixture
def boot_sector(tmp_path: Path) -> Path:
    """An image whose guest starts at once, greets, and does nothing."""
    image = tmp_path / "boot.img"
    image.write_bytes((CODE + (GREETING + "\r\n").encode() + b"\0").ljust(510, b"\0") + b"\x55\xaa" + bytes(1 << 20))
    return image


@pytest.fixture(scope="session")
def guest() -> str:
    """The project's Linux guest, which has an agent."""
    image = os.environ.get("VMRUN_TEST_GUEST")
    assert image, "VMRUN_TEST_GUEST names the guest: `make test-python` sets it"
    return image
