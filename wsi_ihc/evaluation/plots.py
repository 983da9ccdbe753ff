"""Plots of a report as SVG text, drawn by matplotlib without a display."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsi_ihc.errors import SettingsError
from wsi_ihc.evaluation.recipes import Measure
from wsi_ihc.evaluation.summary import ALL, groups_of
from wsi_ihc.measures.her2 import HER2_SCORES
from wsi_ihc.measures.stain import HISTOGRAM_BINS, HISTOGRAM_OD

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCORE_COLOURS = {"0": "#8fa3cc", "1+": "#d9b48a", "2+": "#b0743a", "3+": "#5f3010", None: "#6f7787"}
_INK, _REAL, _GENERATED = "#2b2f38", "#3b4a8c", "#b0743a"


def _figure(width: float, height: float, columns: int = 1) -> tuple[Figure, Sequence[Axes]]:
    try:
        from matplotlib.figure import Figure as NewFigure
    except ImportError:
        raise SettingsError("matplotlib is not installed; pip install 'wsi-ihc[train]', or pass --no-html") from None
    figure = NewFigure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color("#b8bcc6")
        axis.tick_params(colors=_INK, labelsize=8, length=3)
    return figure, list(axes)


def _svg(figure: Figure) -> str:
    from matplotlib import rc_context

    text = io.StringIO()
    # A fixed salt and no date: the same report gives the same page.
    with rc_context({"svg.hashsalt": "wsi-ihc"}):
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    return text.getvalue()[text.getvalue().index("<svg") :]


def distributions(
    measures: Sequence[Measure], columns: Mapping[str, NDArray[np.float64]], scores: Sequence[str | None]
) -> str:
    """A row of panels, one per measure: every image as a dot, by HER2 score, with quartile boxes."""
    groups = groups_of(scores)
    shown = {group: members for group, members in groups.items() if group != ALL} or groups
    figure, axes = _figure(2.6 * len(measures), 2.7, len(measures))
    jitter = np.random.default_rng(0)
    for axis, measure in zip(axes, measures, strict=True):
        for place, (group, members) in enumerate(shown.items()):
            values = columns[measure.key][members]
            values = values[np.isfinite(values)]
            colour = SCORE_COLOURS.get(group, SCORE_COLOURS[None])
            place_of_dots = place + jitter.uniform(-0.28, 0.28, values.size)
            many = values.size > 300  # as an image inside the SVG, which would else weigh megabytes
            axis.plot(place_of_dots, values, ".", color=colour, alpha=0.6, markersize=4, zorder=1, rasterized=many)
            if values.size:
                axis.boxplot(values, positions=[place], widths=0.6, showfliers=False, zorder=2, **_box())
        if measure.better == "zero":
            axis.axhline(0, color="#b8bcc6", linewidth=0.8, zorder=0)
        axis.set_xticks(range(len(shown)), list(shown))
        axis.set_title(measure.title, fontsize=9, color=_INK, loc="left")
    return _svg(figure)


def _box() -> dict[str, Any]:
    thin = {"color": "#565c69", "linewidth": 0.9}
    return {"boxprops": thin, "whiskerprops": thin, "capprops": thin, "medianprops": {"color": _INK, "linewidth": 1.8}}


def dab_plots(
    columns: Mapping[str, NDArray[np.float64]], scores: Sequence[str | None], histograms: NDArray[np.int64]
) -> str:
    """Top-decile DAB density of generated against real images, and both pooled histograms (2, 256)."""
    figure, (scatter, histogram) = _figure(9.2, 3.4, 2)
    real, made = columns["dab_top_decile_real"], columns["dab_top_decile"]
    for score in (*HER2_SCORES, None):
        members = np.array([own == score for own in scores])
        if members.any():
            label: str = score or "no score"
            scatter.plot(
                real[members], made[members], "o", color=SCORE_COLOURS[score], markersize=4, alpha=0.7, label=label
            )
    ends = [min(real.min(), made.min()), max(real.max(), made.max())]
    scatter.plot(ends, ends, color="#b8bcc6", linewidth=1, zorder=0)
    scatter.set(xlabel="real, top-decile DAB OD", ylabel="generated")
    scatter.legend(fontsize=8, frameon=False)
    density = (np.arange(HISTOGRAM_BINS) + 0.5) * HISTOGRAM_OD / HISTOGRAM_BINS
    for counts, colour, label in zip(histograms, (_REAL, _GENERATED), ("real", "generated"), strict=True):
        share = counts / max(1, counts.sum())
        histogram.fill_between(density, share, step="mid", color=colour, alpha=0.18, linewidth=0)
        histogram.step(density, share, where="mid", color=colour, linewidth=1.4, label=label)
    last = int(np.flatnonzero(histograms.sum(axis=0))[-1]) + 2
    histogram.set(yscale="log", ylim=(1e-6, 1), xlim=(0, density[min(last, HISTOGRAM_BINS - 1)]), xlabel="DAB OD")
    histogram.set_ylabel("share of pixels")
    histogram.legend(fontsize=8, frameon=False)
    for axis in (scatter, histogram):
        axis.xaxis.label.set(fontsize=8, color=_INK)
        axis.yaxis.label.set(fontsize=8, color=_INK)
    return _svg(figure)
