"""The environment of the other libraries: made on the first run, and kept beside the checkout's own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / ".venv-bench"
#: What is compared with; a change makes the environment anew.
PACKAGES = (
    "celery[redis]==5.7.*",
    "dramatiq[rabbitmq]==2.2.*",
    "taskiq==0.13.*",
    "taskiq-aio-pika==0.6.*",
)


def python() -> Path:
    """Return the environment's Python; makes the environment when it is not as it should be.

    Raises:
        subprocess.CalledProcessError: pip cannot install them; its output says why.
    """
    stamp, wanted = FOLDER / "installed", "\n".join(PACKAGES)
    found = FOLDER / "bin" / "python"
    if not stamp.is_file() or stamp.read_text() != wanted:
        print(f"bench: installing {', '.join(PACKAGES)} into {FOLDER.name}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(FOLDER)], check=True)
        install = ["-m", "pip", "install", "-q", "--disable-pip-version-check", *PACKAGES]
        subprocess.run([str(found), *install], check=True)
        stamp.write_text(wanted)
    return found


def versions() -> dict[str, str]:
    """Return the installed version of each library."""
    code = (
        "from importlib.metadata import version\n"
        "for name in ('celery', 'dramatiq', 'taskiq', 'taskiq-aio-pika', 'aio-pika'):\n"
        "    print(name, version(name))"
    )
    shown = subprocess.run([str(python()), "-c", code], check=True, capture_output=True, text=True)
    return dict(line.split() for line in shown.stdout.splitlines())
