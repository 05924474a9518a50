"""`python -m tests.docs.run_page FILE`: run a page's code as a module; `await` may stand at its top level."""

from __future__ import annotations

import ast
import asyncio
import inspect
import sys
import types
from pathlib import Path


def main() -> None:
    """Run the file that the command line names."""
    path = Path(sys.argv[1])
    module = types.ModuleType(path.stem)
    module.__file__ = str(path)
    sys.modules[path.stem] = module
    code = compile(path.read_text(), str(path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(code, module.__dict__)
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(result)


if __name__ == "__main__":
    main()
