"""`metagov plugin new NAME`: a plugin as a package of its own, complete and tested, to be changed into the real one."""

from __future__ import annotations

import re
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST_NAME = 64
_SUFFIX = ".tmpl"


def write_plugin(name: str, target: Path) -> list[Path]:
    """Write the package of a plugin called `name` into the new folder `target`; returns the files, in order.

    Raises ValueError for a name that is not lower-case words joined by hyphens, FileExistsError when `target` exists.
    """
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise ValueError(
            f"{name!r} cannot be a plugin's name: use lower-case words joined by hyphens, at most "
            f"{_LONGEST_NAME} characters, such as town-hall"
        )
    if target.exists() or target.is_symlink():
        raise FileExistsError(f"{target} exists already; choose another folder, or move it away")
    package = f"metagov_plugin_{name.replace('-', '_')}"
    words = {"name": name, "package": package, "class_name": "".join(word.capitalize() for word in name.split("-"))}
    texts = {
        path.replace("package/", f"{package}/", 1): template.substitute(words)
        for path, template in sorted(_templates(files(__name__) / "templates"))
    }
    for path, text in texts.items():
        file = target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return [target / path for path in texts]


def _templates(folder: Traversable, prefix: str = "") -> list[tuple[str, Template]]:
    found: list[tuple[str, Template]] = []
    for item in folder.iterdir():
        if item.is_dir():
            found += _templates(item, f"{prefix}{item.name}/")
        elif item.name.endswith(_SUFFIX):
            found.append((prefix + item.name.removesuffix(_SUFFIX), Template(item.read_text(encoding="utf-8"))))
    return found
