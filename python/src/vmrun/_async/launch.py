"""Starts VMs, finds running ones."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Union

from .. import _program
from .._error import Error, LaunchError, ProgramNotFound
from .._json import StrPath
from .._process import Supervisor, text
from . import wire
from .machine import Machine

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .._options import Options

# A failing test shows the line that called, not ours.
__tracebackhide__ = True

# Longer than a boot without KVM on a busy machine takes.
WAIT_TIMEOUT_MS = 300_000
# How long the ladder asks a guest whose disks are thrown away, when this process has died.
AT_ONCE = "1ms"


async def launch(
    image: Optional[StrPath] = None,
    *,
    keep: bool = False,
    wait: Union[None, str, Sequence[str]] = None,
    wait_timeout_ms: int = WAIT_TIMEOUT_MS,
    **options: "Unpack[Options]",
) -> Machine:
    """Starts a VM, as `vmrun qemu` does, and returns when it runs.

    It ends with the `with` block, and at the latest with this process, also at a `kill -9`. `keep`: it stays (`--detached`).
    `wait`: conditions that have to come true first, such as "agent" or "console=login:"; if they do not in time, the VM is ended.
    `options` are the flags of `vmrun qemu`: `mem="2G"`, `publish=["0:22"]`, `ephemeral=True`, `warm="agent"`.
    """
    given: Dict[str, Any] = dict(options)
    disposable = any(given.get(name) for name in ("ephemeral", "warm", "from_"))
    if disposable and not keep:
        given.setdefault("stop_timeout", AT_ONCE)
    arguments = ["qemu", *_program.arguments_of(image, given)]
    machine = await (_detached(arguments) if keep else _owned(arguments, disposable))
    if wait is not None:
        try:
            await machine.wait(wait, all=True, timeout_ms=wait_timeout_ms)
        except Error as error:
            raise (await _not_ready(machine, error)) from None
        except BaseException:
            await machine.close()
            raise
    return machine


async def _owned(arguments: List[str], disposable: bool) -> Machine:
    supervisor = Supervisor(["qemu", "--die-with-parent", *arguments[1:]])
    try:
        name = await wire.result(supervisor.ready)
        place = await wire.in_thread(_program.place, name)
    except (LaunchError, ProgramNotFound):
        raise
    except BaseException as error:
        # interrupted, or ended meanwhile
        supervisor.signal(signal.SIGTERM)
        if not isinstance(error, Error):
            raise
        raise LaunchError(error.message, error.hint, error.code, text(supervisor.console)) from None
    return Machine(place, supervisor, disposable)


async def _detached(arguments: List[str]) -> Machine:
    done = await wire.in_thread(_program.run, ["qemu", "--detached", "--keep", *arguments[1:]])
    if done.returncode:
        raise _program.launch_error(done.returncode, done.stderr)
    return Machine(await wire.in_thread(_program.place, done.stdout.decode().strip()))


async def _not_ready(machine: Machine, error: Error) -> LaunchError:
    console = ""
    try:
        console = await machine.console_text()
        if machine._supervisor is None:
            await machine.stop(force=True)
        else:
            await machine.close()
    except Error:
        # what went wrong first is what is told
        pass
    message = f"VM '{machine.name}' was started, but did not become ready: {error.message}"
    return LaunchError(message, error.hint, error.code, console)


async def attach(name: Optional[str] = None) -> Machine:
    """A VM that runs already; without a name the only one. Closing it leaves the VM alone."""
    return Machine(await wire.in_thread(_program.place, name))


async def list(*, all: bool = False) -> "List[_program.Listed]":
    """The VMs that run; with `all` those that have ended, too."""
    return await wire.in_thread(_program.listed, all)
