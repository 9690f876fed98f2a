"""Shares, their intervals, severity and thresholds."""

import numpy as np
import pytest
from scipy.stats import binomtest

from modeling_embinv.audit.figures import Figure, share
from modeling_embinv.audit.severity import KIND_LEVELS, exceeded, parse_limits, severity
from modeling_embinv.errors_embinv import EmbInvError


def test_a_share_is_pooled_over_rows():
    """The mean of rows' shares would give a row of one word the weight of a row of ten."""
    figure = share([1, 0], [1, 9])
    assert figure.value == pytest.approx(0.1) and (figure.hits, figure.count) == (1, 10)
    assert share([0.0, 0.0], [0, 0]) is None


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    """Resamples of words instead of rows give intervals that are far too narrow: the words of a row come together."""
    generator, covered, trials = np.random.default_rng(0), 0, 200
    for trial in range(trials):
        rows = generator.random(60) < 0.4  # all ten words of a row come back, or none
        figure = share(10.0 * rows, [10] * 60, seed=trial)
        covered += figure.low <= 0.4 <= figure.high
    assert 0.89 <= covered / trials <= 0.99


def test_nothing_of_few_rows_is_not_certainly_nothing():
    """0 of 3 had the interval [0, 0], and 1 of 1 was certain."""
    assert share([0, 0, 0], [4, 4, 4]).high == pytest.approx(1 - 0.025 ** (1 / 3))
    assert share([1]).low == pytest.approx(0.025) and share([1] * 100).low > 0.96
    assert share([0, 0], [4, 0]).high == pytest.approx(0.975)  # a row without words says nothing
    for one in (share([1], [4]), share([1, 0], [4, 0])):  # resamples of one row are all alike
        assert (one.value, one.low, one.high) == (0.25, 0, 1)


def test_one_miss_makes_nothing_surer():
    """5 of 5 and 5 of 6 had a narrower interval than 5 of 5 twice, and half of each of two rows was certain."""
    perfect, missed = share([5, 5], [5, 5]), share([5, 5], [5, 6])
    assert missed.low < perfect.low and missed.high > 0.99
    assert missed.low == pytest.approx(5 / 5.5 * 0.025**0.5, abs=0.03)
    half = share([2, 2], [4, 4])
    assert half.low == pytest.approx(0.5 * 0.025**0.5) and half.high == pytest.approx(1 - half.low)


@pytest.mark.parametrize("rows, truth", [(5, 0.9), (10, 0.7), (29, 0.95)])
def test_intervals_of_few_rows_cover_the_truth(rows, truth):
    """The bootstrap's covered it in 65 of 100 samples of five rows."""
    generator, covered, trials = np.random.default_rng(1), 0, 300
    for trial in range(trials):
        shares = generator.beta(truth, 1 - truth, rows)  # most near 0 or 1, as rows are
        figure = share(shares, seed=trial)
        covered += figure.low <= truth <= figure.high
    assert covered / trials >= 0.94


def test_a_row_in_many_is_not_surer_than_none():
    """1 of 400 had the interval [0, 0.75 %], narrower than that of 0 of 400."""
    rows = np.arange(400)
    assert share(rows < 1).high > share(rows < 0).high and share(rows >= 1).low < share(rows >= 0).low


@pytest.mark.parametrize("hits, rows", [(1, 2), (7, 9), (48, 96), (1, 400), (100, 400)])
@pytest.mark.parametrize("words", [1, 3])
def test_rows_that_are_right_or_wrong_have_the_exact_interval(hits, rows, words):
    """It was drawn at random, and was wrong in the digit that tables print."""
    figure = share(words * (np.arange(rows) < hits), np.full(rows, words))
    exact = binomtest(hits, rows).proportion_ci(method="exact")
    assert (figure.low, figure.high) == pytest.approx((exact.low, exact.high), rel=1e-9)


def test_intervals_near_nothing_cover_the_truth():
    """Shares of three in a hundred lay within their interval in 86 to 91 of 100 samples."""
    samples = np.random.default_rng(2).random((400, 100)) < 0.032
    figures = [share(sample, seed=trial) for trial, sample in enumerate(samples)]
    assert np.mean([figure.low <= 0.032 <= figure.high for figure in figures]) >= 0.94


def test_many_different_rows_are_weighed_in_parts():
    """Rows beyond the first part had no weight: 2500 different ones, most of the share in the last of them."""
    found = np.linspace(0, 1, 2500)
    figure = share(found**4)
    assert figure.low < figure.value < figure.high and figure.high - figure.low == pytest.approx(0.021, abs=0.003)


def test_floors_are_measured_on_the_same_totals():
    """A floor on another denominator cannot stand beside the figure."""
    figure = share([3] * 8, [4] * 8, {"chance": [1, 0] * 4})
    assert figure.floors == {"chance": 0.125} and figure.above_floor
    assert not share([3] * 8, [4] * 8, {"chance": [3] * 8}).above_floor


@pytest.mark.parametrize(
    "value, expected",
    [(0.5, "critical"), (0.4999, "high"), (0.3, "high"), (0.2999, "medium"), (0.15, "medium"), (0.1499, "low")],
)
def test_severity_at_its_thresholds(value, expected):
    """Off by one at a boundary, and the page and its legend disagree."""
    assert severity(Figure(value, 0.1, 0.6, 1, 2, {"chance": 0.05})) == expected


def test_severity_of_kinds_and_of_chance():
    """Half of the names is worse than half of the words; a figure that chance reaches is no finding."""
    assert severity(Figure(0.2, 0.1, 0.3, 1, 5), KIND_LEVELS) == "critical"
    assert severity(Figure(0.0499, 0.01, 0.3, 1, 5), KIND_LEVELS) == "medium"
    assert severity(Figure(0.9, 0.2, 1.0, 1, 5, {"chance": 0.2})) == "none"
    assert severity(Figure(0.0, 0.0, 0.0, 0, 5)) == "none"


def test_thresholds_of_the_command():
    """At the threshold is within it; what was not measured must not pass."""
    limits = parse_limits(["words=0.3, names=0", "exact=1"], ("words", "names", "exact"))
    assert limits == {"words": 0.3, "names": 0.0, "exact": 1.0}
    figures = {name: Figure(value, 0, 1, 1, 1) for name, value in (("words", 0.3), ("names", 0.01), ("exact", 1.0))}
    assert exceeded(figures, limits) == {"words": False, "names": True, "exact": False}
    # a kind that was looked for, and is not there, is within every threshold; what was not measured is neither
    assert exceeded(figures, {"phone": 0.0, "money": 0.1, "names": 0.0}, ["phone"]) == {
        "phone": False, "money": None, "names": True
    }  # fmt: skip


@pytest.mark.parametrize("given", ["words", "words=x", "words=1.1", "words=-0.1", "wrods=0.3", "words=nan", ""])
def test_impossible_thresholds(given):
    """A gate with a typing mistake stood open."""
    with pytest.raises(EmbInvError, match="--fail-over"):
        parse_limits([given], ("words",))
