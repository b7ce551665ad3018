"""One self-contained HTML page from plain text: everything that is given as text is escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from string import Template

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --text: #1b1b1b; --soft: #5a5a5a; --back: #ffffff;
  --line: #d8d8d8; --panel: #f4f5f7; --link: #0059a8; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e6e6; --soft: #a8a8a8; --back: #16181c; --line: #3a3d44;
    --panel: #21242a; --link: #7db8ff; }
}
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 58rem; background: var(--back);
  color: var(--text); font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.3rem; margin: 2.75rem 0 .75rem; border-bottom: 1px solid var(--line);
  padding-bottom: .25rem; }
h3 { font-size: 1.08rem; margin: 2rem 0 .5rem; }
a { color: var(--link); }
nav { background: var(--panel); border-radius: 6px; padding: .75rem 1rem; margin: 1.25rem 0; }
nav ul { margin: 0; padding: 0; list-style: none; display: flex; flex-wrap: wrap;
  gap: .25rem 1.25rem; }
figure { margin: 1.5rem 0 2rem; }
figure img { display: block; max-width: 100%; height: auto; background: #ffffff;
  border: 1px solid var(--line); border-radius: 4px; padding: 6px; box-sizing: border-box; }
figcaption { color: var(--soft); font-size: .92rem; margin-top: .5rem; }
figcaption strong { color: var(--text); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .92rem; }
caption { text-align: left; color: var(--soft); padding-bottom: .35rem; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: break-word; }
td { font-variant-numeric: tabular-nums; }
details { background: var(--panel); border-radius: 6px; padding: .5rem 1rem; margin: 1rem 0; }
summary { cursor: pointer; }
pre { overflow-x: auto; font-size: .85rem; line-height: 1.45; }
.findings { background: var(--panel); border-left: 4px solid var(--link); border-radius: 4px;
  padding: .75rem 1rem .75rem 2rem; }
footer { margin-top: 3rem; color: var(--soft); font-size: .88rem; }
@media print { nav { display: none; } figure { break-inside: avoid; } }
</style>
</head>
<body>
<header>
<h1>$title</h1>
$lead
</header>
<nav aria-label="Contents"><ul>
$contents
</ul></nav>
<main>
$sections
</main>
<footer>$footer</footer>
</body>
</html>
""")


@dataclass(frozen=True)
class Section:
    """A part of the page: `anchor` is its id, `body` finished HTML."""

    anchor: str
    title: str
    body: str


def page(title: str, lead: str, sections: Sequence[Section], footer: str) -> str:
    """Return the whole page; `lead` is HTML, `title` and `footer` are text."""
    return _PAGE.substitute(
        title=escape(title),
        lead=lead,
        contents="\n".join(
            f'<li><a href="#{escape(part.anchor)}">{escape(part.title)}</a></li>'
            for part in sections
        ),
        sections="\n".join(
            f'<section id="{escape(part.anchor)}">\n<h2>{escape(part.title)}</h2>\n{part.body}\n'
            "</section>"
            for part in sections
        ),
        footer=escape(footer),
    )


def joined(*parts: str) -> str:
    """Join finished HTML; parts that are empty vanish."""
    return "\n".join(part for part in parts if part)


def paragraph(*sentences: str) -> str:
    """Return a paragraph; empty sentences vanish."""
    text = " ".join(sentence for sentence in sentences if sentence)
    return f"<p>{escape(text)}</p>" if text else ""


def heading(text: str) -> str:
    """Return a heading within a section."""
    return f"<h3>{escape(text)}</h3>"


def findings(sentences: Iterable[str]) -> str:
    """Return a list that stands out."""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<ul class="findings">{items}</ul>' if items else ""


def table(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """Return a table of text."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    lines = ("".join(f"<td>{escape(text)}</td>" for text in row) for row in rows)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    over = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="wide"><table>{over}<thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def picture(png: bytes, title: str, caption: str) -> str:
    """Return a figure with the image inside the page."""
    data = base64.b64encode(png).decode("ascii")
    return (
        f'<figure><img alt="{escape(title)}" src="data:image/png;base64,{data}">'
        f"<figcaption><strong>{escape(title)}.</strong> {escape(caption)}</figcaption></figure>"
    )


def folded(title: str, text: str) -> str:
    """Return preformatted text that opens on a click."""
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"


def reference(text: str, address: str) -> str:
    """Return a citation with its link."""
    link = f'<a href="{escape(address)}">{escape(address)}</a>'
    return f"<p>{escape(text)} {link}</p>"
