"""An HTML page that stands alone: its pictures and its style are inside the file."""

from __future__ import annotations

import base64
import dataclasses
import html
import re
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
body { font: 16px/1.55 system-ui, sans-serif; color: #1c2733; background: #fff;
       max-width: 62rem; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; margin-bottom: 0; } h2 { margin-top: 2.4rem; font-size: 1.25rem;
       border-bottom: 1px solid #d5deec; padding-bottom: .2rem; }
.sub { color: #5a6b7d; margin-top: .2rem; }
pre { background: #f5f8fc; padding: .8rem 1rem; overflow-x: auto; font-size: .82rem;
      line-height: 1.45; border-radius: 6px; }
img.tex { vertical-align: middle; } div > img.tex { margin: .25rem 0; }
img { max-width: 100%; height: auto; } figure { margin: 1rem 0; }
figcaption { color: #5a6b7d; font-size: .9rem; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .18rem .8rem .18rem 0; text-align: right; }
th:first-child, td:first-child { text-align: left; }
thead th { border-bottom: 1px solid #8fa1b5; }
"""


@dataclasses.dataclass
class Page:
    """A page under construction: sections are added one after another."""

    title: str
    subtitle: str = ""
    parts: list[str] = dataclasses.field(default_factory=list)

    def section(self, title: str) -> None:
        self.parts.append(f"<h2>{html.escape(title)}</h2>")

    def text(self, text: str) -> None:
        self.parts.append(f"<p>{html.escape(text)}</p>")

    def prose(self, text: str) -> None:
        """Paragraphs, apart by blank lines, in which TeX stands between dollars."""
        for paragraph in re.split(r"\n\s*\n", text.strip()):
            parts = re.split(r"\$\$(.+?)\$\$|\$(.+?)\$", paragraph, flags=re.DOTALL)
            said = ""
            formulas = [*zip(parts[1::3], parts[2::3], strict=True), (None, None)]
            for plain, (shown, inline) in zip(parts[::3], formulas, strict=True):
                said += re.sub(r"(`+)(.+?)\1", r"<code>\2</code>", html.escape(plain))
                if shown is not None:
                    said += f"</p><div>{_formula(shown)}</div><p>"
                elif inline is not None:
                    said += _formula(inline)
            self.parts.append(f"<p>{said}</p>")

    def code(self, text: str) -> None:
        self.parts.append(f"<pre>{html.escape(text)}</pre>")

    def formulas(self, formulas: Iterable[str]) -> None:
        """Formulas in TeX, one on each line; one that cannot be typeset is shown as its source."""
        self.parts += [f"<div>{_formula(formula)}</div>" for formula in formulas]

    def figure(self, figure: Figure, caption: str) -> None:
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=150)
        self.picture(buffer.getvalue(), caption)

    def picture(self, content: bytes, caption: str, kind: str = "png") -> None:
        said = html.escape(caption)
        self.parts.append(
            f'<figure><img alt="{html.escape(caption, quote=True)}" src="{_uri(content, kind)}">'
            f"<figcaption>{said}</figcaption></figure>"
        )

    def table(self, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        def row(cells: Sequence[object], tag: str) -> str:
            return (
                "<tr>" + "".join(f"<{tag}>{html.escape(_cell(c))}</{tag}>" for c in cells) + "</tr>"
            )

        body = "".join(row(cells, "td") for cells in rows)
        self.parts.append(f"<table><thead>{row(header, 'th')}</thead><tbody>{body}</tbody></table>")

    def __str__(self) -> str:
        title = html.escape(self.title)
        return "\n".join(
            [
                '<!doctype html><html lang="en"><head><meta charset="utf-8">',
                '<meta name="viewport" content="width=device-width, initial-scale=1">',
                f"<title>{title}</title><style>{STYLE}</style></head><body>",
                f'<h1>{title}</h1><p class="sub">{html.escape(self.subtitle)}</p>',
                *self.parts,
                "</body></html>\n",
            ]
        )


def _cell(value: object) -> str:
    """The text of a cell; floats have four digits, or all digits before the point."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.4g}"


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _formula(tex: str) -> str:
    """A formula as a picture with its source as the text for those who cannot see it."""
    source = html.escape(" ".join(tex.split()), quote=True)
    try:
        picture = _typeset(" ".join(tex.split()))
    except ValueError:
        return f"<code>{source}</code>"
    return f'<img class="tex" alt="{source}" src="{_uri(picture, "svg+xml")}">'


def _typeset(formula: str) -> bytes:
    """A formula as an SVG picture, by Matplotlib; ValueError if it uses commands that it lacks."""
    from matplotlib.mathtext import math_to_image

    buffer = BytesIO()
    # Matplotlib knows neither fractions of another size nor arguments without braces.
    formula = re.sub(r"\\[td]?frac(\w)(\w)", r"\\frac{\1}{\2}", formula)
    formula = re.sub(r"\\[td]frac", r"\\frac", formula)
    formula = re.sub(r"\\sqrt\s+(\w)", r"\\sqrt{\1}", formula)
    formula = re.sub(r"\\[lr]Vert", r"\\|", formula)
    math_to_image(f"${formula}$", buffer, format="svg")
    return buffer.getvalue()
