"""The process that is measured: ``python -m tests.bench.side MODULE FUNCTION JSON``.

A process for each reading: caches, garbage and threads of one never weigh on the next. Its last
line of output is what the function returned.
"""

from __future__ import annotations

import importlib
import json
import sys


def main() -> None:
    """Run one function of one side."""
    module, function, arguments = sys.argv[1:4]
    side = importlib.import_module(f"tests.bench.{module}")
    print(json.dumps(getattr(side, function)(**json.loads(arguments))))
    side.finish()


if __name__ == "__main__":
    main()
