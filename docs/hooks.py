"""What the site needs beyond Markdown: the README as a page, examples, links out of docs/, formulas, line breaks."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from latex2mathml.converter import convert

MATHML = "http://www.w3.org/1998/Math/MathML"
ElementTree.register_namespace("", MATHML)
INCLUDE = re.compile(r'--8<-- "([^"]+)"')
EXAMPLE = re.compile(r"^```python\n# (examples/\w+\.py)\n```$")
FENCED = re.compile(r"(^```.*?^```$)", re.M | re.S)
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
FORMULA = re.compile(r"^\$\$(.*?)\$\$$", re.M | re.S)


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """A page of docs/ as the site shows it. MkDocs calls this before it looks at links.

    A page that is one include, `--8<-- "FILE"`, becomes that file of the repository. Its links are relative to that
    file: targets in docs/ are linked from the page, targets outside have no page and become plain text. A block of
    Python that is one comment, `# examples/FILE.py`, becomes that example.
    """
    docs = Path(config.docs_dir)
    written = shown = Path(page.file.abs_src_path).parent
    include = INCLUDE.fullmatch(markdown.strip())
    if include:
        file = docs.parent / include[1]
        markdown, written = file.read_text(), file.parent

    def link(match: re.Match[str]) -> str:
        text, target, anchor = match.groups()
        path = Path(os.path.normpath(written / target))
        if "://" in target or not path.exists():
            return match[0]  # strict mode reports what does not exist
        if docs not in path.parents:
            return text
        return f"[{text}]({Path(os.path.relpath(path, shown)).as_posix()}{anchor or ''})"

    def example(match: re.Match[str]) -> str:
        return f"```python\n{(docs.parent / match[1]).read_text()}```"

    parts = FENCED.split(markdown)
    parts[1::2] = [EXAMPLE.sub(example, part) for part in parts[1::2]]
    parts[::2] = [FORMULA.sub(formula, LINK.sub(link, part)) for part in parts[::2]]
    return "".join(parts)


def on_page_content(html: str, *, page: Any, config: Any, files: Any) -> str:
    """The HTML of a page, in which names in code may only be broken behind /, : and _ (with docs/style.css)."""
    return re.sub(r"(?<=<code>)[^<]+(?=</code>)", lambda match: re.sub(r"([/:_])", r"\1<wbr>", match[0]), html)


def formula(match: re.Match[str]) -> str:
    """LaTeX as MathML, which browsers show without a script. ValueError for a command that would stay LaTeX."""
    written = convert(match[1].strip(), display="block")
    if unknown := re.search(r"\\\w+", written):
        raise ValueError(f"latex2mathml does not know {unknown[0]}; write it in another way")
    tree = ElementTree.fromstring(written)
    for over in tree.iter(f"{{{MATHML}}}mover"):
        if over[1].text == "\u2015":  # a bar over several letters: only some fonts can stretch the character
            over.remove(over[1])
            over.tag, over.attrib = f"{{{MATHML}}}mrow", {"style": "border-top: 1px solid"}
    return f'<div style="overflow-x: auto">{ElementTree.tostring(tree, encoding="unicode")}</div>'
