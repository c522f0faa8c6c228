"""The report's plots as files."""

from __future__ import annotations

import os
from pathlib import Path

import altair as alt
import vl_convert

from speechtaxi.report import charts
from speechtaxi.report.comparison import Comparison
from speechtaxi.report.systems import kinds, setups


def overview(found: Comparison, path: Path) -> None:
    """Write the means of all setups as a PNG."""
    spec = overview_chart(found).to_dict()
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        draft.write_bytes(
            vl_convert.vegalite_to_png({**spec, "config": charts.config("#222222")}, scale=2)
        )
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def overview_chart(found: Comparison) -> alt.VConcatChart:
    """Draw the means of all setups below each other, for one picture."""
    used = [name for name in charts.KINDS if name in kinds(found)]
    legend = alt.Legend(orient="top", title=None, symbolType="circle", values=used)
    return alt.vconcat(
        *(
            charts.score_chart(found, means, 480, legend if n == 0 else None).properties(
                title=charts.setup_title(setup, languages)
            )
            for n, (setup, means, languages) in enumerate(setups(found))
        )
    ).properties(
        title=alt.TitleParams(
            "Macro-F1 with 95 % intervals (grey: majority baseline)",
            subtitle=list(found.notes),
            fontSize=16,
            subtitleFontSize=12,
            subtitlePadding=6,
            offset=16,
        ),
        padding=20,
    )
