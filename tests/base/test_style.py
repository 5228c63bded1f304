"""What all figures share: letters that can be drawn, and ticks that do not overprint."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from minitx.base import style


def test_a_letter_without_a_font_is_escaped_and_others_stay(monkeypatch):
    monkeypatch.setattr(style, "_letters", lambda: frozenset(map(ord, "σκύλος $.‹›")))
    assert style.literal("σκύλος") == "σκύλος"
    assert style.literal("中") == r"\u4e2d"
    assert style.literal("$") == r"\$"
    assert style.tick_label(".", named=True) == "‹.› " + style.literal("full stop")


@pytest.mark.parametrize(("low", "high"), [(1, 3), (1, 12), (1, 200), (1, 4000)])
def test_ticks_of_a_logarithmic_axis_do_not_overprint(low, high):
    figure = Figure(figsize=(5, 4))
    axes = figure.subplots()
    axes.plot([low, high], [1, 2])
    axes.set_xscale("log")
    style.log_ticks(axes.xaxis)
    figure.draw_without_rendering()
    labels = [label.get_window_extent() for label in axes.get_xticklabels(which="both") if label.get_text()]
    inside = sorted((box.x0, box.x1) for box in labels)
    assert len(inside) >= 2
    assert all(np.diff([end for pair in inside for end in pair])[1::2] > 0)
