import pytest

from app.components.charts import intervals

LINES = [intervals.Line("one", 0.5, 0.4, 0.6), intervals.Line("other", -0.1, -0.2, 0.1)]


@pytest.mark.parametrize("zero", [True, False])
def test_zero_is_a_stroke_a_line_that_leaves_the_names_free(zero):
    figure = intervals.chart(LINES, intervals.Names("axis"), ink="#000", zero=zero)
    strokes = [shape for shape in figure.layout.shapes if shape.type == "line"]
    assert len(strokes) == (2 if zero else 0) and not figure.layout.xaxis.zeroline
    for row, (stroke, name) in enumerate(zip(strokes, figure.layout.annotations, strict=zero)):
        assert stroke.x0 == stroke.x1 == 0 and name.y < stroke.y0 < row + intervals.LOW < stroke.y1 < row + 0.5


def test_the_axis_holds_zero_where_it_stands():
    for zero in (True, False):
        low, high = intervals.chart(LINES[:1], intervals.Names("axis"), ink="#000", zero=zero).layout.xaxis.range
        assert (low <= 0 <= high) == zero and low < 0.4 and high > 0.6
