"""Virtual machines in tests of pytest: the fixtures `vm`, `vm_factory` and `vm_session`, and what is kept of a failed test's VMs."""

from __future__ import annotations

from typing import Any, Callable, Dict, Generator, List, Optional, Protocol

import pytest

from ._error import Error, LaunchError
from ._json import StrPath
from ._pytest import settings
from ._pytest.artefacts import Watched, keep_launch_error, ways_in
from ._sync.launch import launch
from ._sync.machine import Machine

# A failing test shows the line that called, not ours.
__tracebackhide__ = True

VMS = pytest.StashKey[List[Watched]]()
SESSION_VM = pytest.StashKey[Watched]()
FAILED = pytest.StashKey[bool]()
# In a report, so that it gets from a worker of pytest-xdist to the terminal.
LEFT_PROPERTY = "vmrun_left"
# The VMs that were left, where the summary is printed.
_left: List[str] = []


class VmFactory(Protocol):
    """Starts a VM for a test: as the settings and markers say, and as is said here."""

    def __call__(self, image: Optional[StrPath] = None, **options: Any) -> Machine: ...


def pytest_addoption(parser: pytest.Parser) -> None:
    settings.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "vm(image, **options): the image and options of the test's VM, as of vmrun.launch (mem='2G', warm='agent')"
    )


def _started(options: Dict[str, Any], config: pytest.Config) -> Watched:
    given = dict(options)
    image = given.pop("image", None)
    return Watched(launch(image, keep=settings.is_kept(config), **given))


def _end(watched: Watched, leave: bool) -> None:
    if leave:
        watched.vm._hang_up()
        return
    try:
        watched.write_outcome(watched.vm.stop())
    except LookupError:
        # it ended, and left no record
        pass
    finally:
        watched.vm._hang_up()


@pytest.fixture
def vm_factory(request: pytest.FixtureRequest) -> Generator[VmFactory, None, None]:
    """Starts any number of VMs for a test. They end with it."""
    item: pytest.Item = request.node
    started = item.stash.setdefault(VMS, [])

    def start(image: Optional[StrPath] = None, **options: Any) -> Machine:
        given = dict(options) if image is None else {**options, "image": image}
        watched = _started(settings.resolved(item.config, settings.of_markers(item), given), item.config)
        started.append(watched)
        return watched.vm

    yield start
    problems: List[Exception] = []
    for watched in started:
        leave = settings.is_kept(item.config) and item.stash.get(FAILED, False) and watched.ended() is None
        try:
            _end(watched, leave)
        except Error as error:
            problems.append(error)
    if problems:
        raise problems[0]


@pytest.fixture
def vm(vm_factory: VmFactory) -> Machine:
    """The test's own VM: a fork of a template that is booted once, or what the settings and markers say. It ends with the test."""
    return vm_factory()


@pytest.fixture(scope="session")
def vm_session(request: pytest.FixtureRequest) -> Generator[Machine, None, None]:
    """One VM for all tests that ask for it (of this worker, with pytest-xdist). It has what earlier tests did to it."""
    config = request.config
    watched = _started(settings.resolved(config), config)
    config.stash[SESSION_VM] = watched
    yield watched.vm
    _end(watched, settings.is_kept(config) and request.session.testsfailed > 0 and watched.ended() is None)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: "pytest.CallInfo[None]") -> Generator[None, Any, None]:
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    if not report.failed or report.when == "teardown":
        return
    item.stash[FAILED] = True
    folder = settings.folder_of(item)
    error = None if call.excinfo is None else call.excinfo.value
    if isinstance(error, LaunchError):
        _add_section(report, "vm", lambda: keep_launch_error(error, folder))
    own: List[Watched] = item.stash.setdefault(VMS, [])
    watched = own.copy()
    shared = item.config.stash.get(SESSION_VM, None)
    if shared is not None and "vm_session" in getattr(item, "fixturenames", ()):
        watched.append(shared)
    names = [one.vm.name for one in watched]
    for number, one in enumerate(watched):
        # two that had the same name, one after the other
        earlier = names[:number].count(one.vm.name)
        place = folder / (f"{one.vm.name}-{earlier + 1}" if earlier else one.vm.name)
        _add_section(report, f"vm '{one.vm.name}'", lambda one=one, place=place: one.keep(place))  # type: ignore[misc]
    if settings.is_kept(item.config):
        left = [one.vm.name for one in watched if one.ended() is None]
        report.user_properties.append((LEFT_PROPERTY, ",".join(left)))
        if left:
            report.sections.append(("vm", "\n".join(ways_in(left))))


def _add_section(report: pytest.TestReport, title: str, make: Callable[[], Optional[str]]) -> None:
    """What goes wrong here must not hide why the test failed."""
    try:
        text = make()
    except Exception as error:
        text = f"nothing could be kept of it: {error}"
    if text:
        report.sections.append((title, text))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """With pytest-xdist this is the process that prints."""
    for name, value in report.user_properties:
        if name == LEFT_PROPERTY and isinstance(value, str):
            _left.extend(name for name in value.split(",") if name)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    names = list(dict.fromkeys(_left))
    if names:
        terminalreporter.section("virtual machines that were left (--vm-keep)")
        for line in ways_in(names):
            terminalreporter.line(line)
