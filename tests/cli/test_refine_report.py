import math

from ddps.cli.refine_report import one_line, summarise
from ddps.review import Row


def test_means_leave_out_what_is_not_known():
    rows = [Row("a", 2.0, 4.0, (), 1.0), Row("b", None, None, (), 3.0, resized=True)]
    assert summarise(rows) == {"changed": 2.0, "uncertainty": 4.0, "seconds_per_image": 2.0, "resized": 1}
    assert math.isnan(summarise([])["changed"])


def test_one_line_says_all_there_is():
    report = {"refined": 2, "skipped": 0, "failed": [], "without_prediction": 0, "output": "out"}
    assert one_line(report | summarise([])) == "refined 2 -> out"
    row = Row("a", 2.0, 4.0, (), 1.0, resized=True)
    full = {"skipped": 1, "failed": [{}], "without_prediction": 3, "review": {"listed": 4, "page": "p"}}
    line = one_line(report | summarise([row]) | full)
    for part in ("skipped 1", "failed 1", "left out 3", "resized 1", "2.00 %", "1.00 s", "4 to look at in p", "-> out"):
        assert part in line
