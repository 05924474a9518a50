"""Every code block on a page of docs/ runs, or parses, or is the file it says it is; links lead somewhere."""

from __future__ import annotations

import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.docs.commands import program_names, run
from tests.docs.pages import DOCS, README, ROOT, all_pages, as_module, blocks, prose
from tests.support.servers import Server

TUTORIAL = DOCS / "plugin-tutorial.md"
WITH_PYTHON = [page for page in sorted(DOCS.rglob("*.md")) if any(blocks(page, "python")) and page != TUTORIAL]
LANGUAGES = {"python", "sh", "json", "js", "console", "text"}
_LINK = re.compile(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@pytest.mark.parametrize("page", [pytest.param(page, id=page.stem) for page in WITH_PYTHON])
async def test_its_python_runs(page: Path, server: Server, tmp_path: Path) -> None:
    code = tmp_path / f"page_{page.stem.replace('-', '_')}.py"
    code.write_text(as_module(page))
    done = await run(sys.executable, "-m", "tests.docs.run_page", str(code), variables=program_names(server))
    assert done.code == 0, f"{page}:\n{done.output}"


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in all_pages()])
def test_its_blocks_name_a_language_that_is_checked(page: Path) -> None:
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{page.name}:{block.line}"
        if block.language == "json":
            json.loads(block.text)
    assert prose(page).count("```") == 0, f"{page.name}: a block is not closed"


def test_shell_blocks_stand_only_where_a_test_runs_them() -> None:
    assert {page for page in all_pages() if any(blocks(page, "sh"))} <= {README, TUTORIAL}


def test_the_node_verifier_is_the_example() -> None:
    block = next(blocks(DOCS / "events-and-endpoints.md", "js"))
    assert block.text == (ROOT / "examples/node-driver/verify.mjs").read_text()


def anchor(heading: str) -> str:
    """GitHub's name for a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in all_pages()])
def test_its_links_lead_somewhere(page: Path) -> None:
    for match in _LINK.finditer(prose(page)):
        target = match[1] or match[2]
        if "://" in target:
            continue
        path, _, fragment = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        if fragment:
            assert fragment in {anchor(heading) for heading in _HEADING.findall(prose(file))}, f"{page.name}: {target}"


def test_every_page_of_docs_can_be_reached_from_the_readme() -> None:
    found, waiting = {README}, [README]
    while waiting:
        page = waiting.pop()
        for match in _LINK.finditer(prose(page)):
            file = (page.parent / (match[1] or match[2]).partition("#")[0]).resolve()
            if file.suffix == ".md" and file.exists() and file not in found:
                found.add(file)
                waiting.append(file)
    assert set(DOCS.rglob("*.md")) - found == set()


def test_the_picture_is_whole() -> None:
    picture = ET.parse(DOCS / "flow.svg").getroot()
    _, _, width, height = (float(number) for number in picture.attrib["viewBox"].split())
    texts = [element for element in picture.iter() if element.tag.endswith("}text")]
    assert texts
    for text in texts:
        assert 0 < float(text.attrib["x"]) < width
        assert 0 < float(text.attrib["y"]) < height
