"""A report's tables in LaTeX (booktabs), to be put into a paper."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from unicodedata import category

from speechtaxi.report.comparison import Comparison
from speechtaxi.report.section import Row, Section, Table, Value
from speechtaxi.statistics import Interval

MOST_ROWS = 40
"""A longer table may break over pages."""

WIDE = 40
"""Characters from which a column of text is broken into lines."""

BEST = "●"
"""What the column "best" holds where a system is; here it is bold instead."""

DOCUMENT = r"""% All tables of a report. Each file beside this one is a table for \input; they need
% booktabs, graphicx (tables that are shrunk to the line), longtable and pdflscape (long ones).
% Text in scripts other than Latin needs LuaLaTeX or XeLaTeX and a font that has them.
\documentclass{article}
\usepackage{iftex}
\iftutex\usepackage{fontspec}\else\usepackage[T1]{fontenc}\fi
\usepackage[a4paper,margin=2cm]{geometry}
\usepackage{booktabs,graphicx,longtable,pdflscape}
\begin{document}
%s
\end{document}
"""

SPECIAL = {
    **{c: f"\\{c}" for c in "{}$&#%_"},
    **{c: f"{{{c}}}" for c in "[]*"},  # at the start of a row they would belong to \\
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\char34{}",
    "–": "--",
    "—": "---",
    "…": r"\dots{}",
    "†": r"\dag{}",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "·": r"$\cdot$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "≈": r"$\approx$",
    "∞": r"$\infty$",
    "→": r"$\rightarrow$",
    "←": r"$\leftarrow$",
    "●": r"$\bullet$",
    "■": r"\rule{1ex}{1ex}",
    "▲": r"$\triangle$",
    "◆": r"$\diamond$",
}


def as_latex(found: Comparison, sections: Sequence[Section]) -> dict[str, str]:
    """Return a file for each table by its name, and "tables", a document of all."""
    best = {id(score.macro_f1) for score in (*found.cells, *found.means) if score.best}
    tables = {
        table.name: latex(table, best)
        for section in sections
        for table in section.tables
        if table.rows
    }
    inputs = "\n".join(f"\\input{{{name}}}\n\\clearpage" for name in tables)
    return {**tables, "tables": DOCUMENT.replace("%s", inputs)}


def latex(table: Table, best: Iterable[int] = ()) -> str:
    """Return a table with caption and label; a longtable where it has many rows.

    Args:
        best: `id` of the intervals that are bold, besides those that the column "best" marks.
    """
    best = {*best, *filter(None, map(_marked, table.rows))}
    marks = {row.get("best") for row in table.rows}
    columns = [c for c in table.columns if c != "best" or not marks <= {BEST, ""}]
    rows = [[_cell(table, row[c], best) for c in columns] for row in table.rows]
    total = [_cell(table, table.total[c], best) for c in columns] if table.total else []
    widths = {c: max(len(table.text(row[c])) for row in table.rows) for c in columns}
    kinds = "".join(_kind(table, c, widths[c]) for c in columns)
    head = _line(map(escape, columns))
    body = "\n".join([*map(_line, rows), *(["\\midrule", _line(total)] if total else [])])
    caption = f"\\caption{{{_caption(table, best)}}}\\label{{tab:{_key(table.name)}}}"
    if len(rows) <= MOST_ROWS:
        return FLOAT % {"kinds": kinds, "head": head, "body": body, "caption": caption}
    width = sum(2 + max(len(c), min(widths[c], WIDE)) for c in columns)
    text = LONG % {
        "kinds": kinds,
        "head": head,
        "body": body,
        "caption": caption,
        "columns": len(columns),
        "size": "\\scriptsize" if width > 100 else "\\footnotesize",
    }
    return f"\\begin{{landscape}}\n{text}\\end{{landscape}}\n" if width > 140 else text


def escape(text: str) -> str:
    """Return text that TeX prints as it is written, on one line.

    >>> print(escape("50 % of_all {x} -- <b>"))
    50 \\% of\\_all \\{x\\} -{}- \\textless{}b\\textgreater{}
    """
    text = " ".join("".join(c for c in text if c.isspace() or category(c) != "Cc").split())
    # What TeX would join to another sign, as two hyphens to a dash, is kept apart
    parts = re.split(r"(?<=[-`',!?<>])(?=[-`'])", text)
    return "{}".join("".join(SPECIAL.get(c, c) for c in part) for part in parts)


FLOAT = r"""\begin{table}[tbp]
\centering
%(caption)s
\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%%
\begin{tabular}{@{}%(kinds)s@{}}
\toprule
%(head)s
\midrule
%(body)s
\bottomrule
\end{tabular}}
\end{table}
"""

LONG = r"""{%(size)s\setlength{\tabcolsep}{3pt}
\begin{longtable}{@{}%(kinds)s@{}}
%(caption)s\\
\toprule
%(head)s
\midrule
\endfirsthead
\toprule
%(head)s
\midrule
\endhead
\midrule
\multicolumn{%(columns)d}{r@{}}{goes on}\\
\endfoot
\bottomrule
\endlastfoot
%(body)s
\end{longtable}}
"""


def _cell(table: Table, value: Value, best: set[int]) -> str:
    if not isinstance(value, Interval):
        return escape(value) if isinstance(value, str) else _number(table, value)
    estimate = _number(table, value.estimate)
    if id(value) in best:
        estimate = f"\\textbf{{{estimate}}}"
    if not math.isnan(value.low):
        low, high = (_number(table, limit) for limit in (value.low, value.high))
        estimate += f" {{\\scriptsize [{low}, {high}]}}"
    return estimate + ("\\textsuperscript{\\dag}" if value.note else "")


def _number(table: Table, value: Value) -> str:
    return escape(table.text(value).replace("-", "−"))


def _marked(row: Row) -> int | None:
    """Return the `id` of the first interval of a row that the column "best" marks."""
    if row.get("best") != BEST:
        return None
    return next((id(value) for value in row.values() if isinstance(value, Interval)), None)


def _kind(table: Table, column: str, width: int) -> str:
    if any(isinstance(row[column], (int, float, Interval)) for row in table.rows):
        return "r"
    return r"p{.25\linewidth}" if width > WIDE else "l"


def _caption(table: Table, best: set[int]) -> str:
    cells = [v for row in (*table.rows, table.total or {}) for v in row.values()]
    said = [escape(table.title).rstrip(".") + "."]
    if any(isinstance(v, Interval) and not math.isnan(v.low) for v in cells):
        said.append("In brackets: 95\\,\\% intervals.")
    if any(id(v) in best for v in cells):
        said.append("Bold: the best and what the data cannot tell from it.")
    said += [f"\\textsuperscript{{\\dag}}\\,{escape(note)}." for note in table.footnotes]
    return " ".join(said)


def _key(name: str) -> str:
    return re.sub(r"[\W_]", "-", name)


def _line(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"
