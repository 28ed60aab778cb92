"""The look: readable by everybody, by day and by night."""

import pytest

from linprobe.report.style import CONTROL_LOOKS, DARK, LIGHT, NETWORK

TEXT, GRAPHICS = 4.5, 3.0  # least contrasts of WCAG 2.2, level AA (1.4.3 and 1.4.11)


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_by_hand():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # just too little


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_lines_stand_out(palette):
    for name in ("ink", "muted"):
        assert contrast(palette[name], palette["surface"]) >= TEXT, name
        assert contrast(palette[name], palette["raised"]) >= TEXT, name
    looks = {look.colour for look in (NETWORK, *CONTROL_LOOKS.values())}
    for name in {"blue", "vermilion"} | looks:
        assert contrast(palette[name], palette["surface"]) >= GRAPHICS, name


def test_lines_differ_without_their_colours():
    looks = (NETWORK, *CONTROL_LOOKS.values())
    assert len({(look.dash, look.marker) for look in looks}) == len(looks)
