"""Makes the generated parts of the package anew; with `--check` says which of them are not what would be made.

    python3 python/generate [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Dict

from blocking import blocking
from idl import members
from options import options_module
from write import errors_module, exit_codes, methods_module, types_module

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "python/src/vmrun"
PROTOCOL = "proto/io.vmrun.Machine.varlink"
REFERENCE = "docs/reference/qemu.md"
# in both by hand
BY_HAND = {"wire.py"}


def generated() -> Dict[Path, str]:
    parsed = members((ROOT / PROTOCOL).read_text())
    codes = exit_codes((ROOT / "docs/protocol.md").read_text())
    made = {
        PACKAGE / "types.py": types_module(parsed, PROTOCOL),
        PACKAGE / "errors.py": errors_module(parsed, PROTOCOL, codes),
        PACKAGE / "_options.py": options_module((ROOT / REFERENCE).read_text(), REFERENCE),
        PACKAGE / "_async/methods.py": methods_module(parsed, PROTOCOL),
    }
    sources = {path: path.read_text() for path in (PACKAGE / "_async").glob("*.py")}
    sources.update({path: text for path, text in made.items() if path.parent.name == "_async"})
    for path, text in sources.items():
        if path.name not in BY_HAND:
            made[PACKAGE / "_sync" / path.name] = blocking(text, f"_async/{path.name}")
    return made


def main() -> int:
    stale = []
    made = generated()
    for path, text in made.items():
        if path.exists() and path.read_text() == text:
            continue
        stale.append(str(path.relative_to(ROOT)))
        if "--check" not in sys.argv:
            path.write_text(text)
    kept = {path.name for path in made if path.parent.name == "_sync"} | BY_HAND
    stale += [f"{path} (has no source)" for path in (PACKAGE / "_sync").glob("*.py") if path.name not in kept]
    print("\n".join(stale) or "all is as it would be made")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
