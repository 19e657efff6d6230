import json

import pytest

TINY = ("--sizes", "24x40", "--classes", "5", "--dim", "8", "--steps", "2", "--repeats", "2", "--device", "cpu")


@pytest.fixture
def speed(run):
    def command(*arguments):
        return run("benchmark", "speed", *arguments)

    return command


def test_one_table_and_one_file(speed, tmp_path):
    target = tmp_path / "speed.json"
    outcome = speed(*TINY, "-o", target)
    assert outcome.code == 0 and outcome.err == ""
    report = json.loads(target.read_text())
    assert (report["model"], report["repeats"], report["machine"]["device"]) == ("paper", 2, "cpu")
    (case,) = report["cases"]
    assert (case["size"], case["classes"], case["steps"], case["dim"]) == ([24, 40], 5, 2, 8)
    assert case["labels_agree_percent"] > 99 and case["peak_flops_per_second"] > 0
    for name in ("naive", "ours"):
        part = case["timings"][name]
        assert part["seconds"]["shortest"] <= part["seconds"]["median"] <= part["seconds"]["longest"]
        assert part["flops_per_second"] == pytest.approx(part["flops"] / part["seconds"]["median"])
        assert any(line.split()[2:3] == [name] for line in outcome.out.splitlines() if line.startswith("24x40, 5"))
    again = speed(*TINY, "-o", target)
    assert again.is_bad_input() and "--overwrite" in again.err


def test_every_size_with_every_number_of_classes(speed):
    cases = speed(*TINY, "--sizes", "16,24x32", "--classes", "3,4", "--dtype", "bfloat16", "--json").json["cases"]
    assert [(case["size"], case["classes"]) for case in cases] == [
        ([16, 16], 3),
        ([16, 16], 4),
        ([24, 32], 3),
        ([24, 32], 4),
    ]
    assert {case["dtype"] for case in cases} == {"bfloat16"}


def test_the_universal_refiner(speed):
    arguments = ("--model", "universal", "--sizes", "32", "--classes", "3", "--repeats", "1", "--device", "cpu")
    report = speed(*arguments, "--json").json
    (case,) = report["cases"]
    assert list(case["timings"]) == ["refine"] and case["timings"]["refine"]["flops"] > 0 and "dim" not in case
    assert "refine" in speed(*arguments, "--steps", "1").out
    assert speed(*arguments, "--steps", "4096").is_bad_input()


@pytest.mark.parametrize(
    "options",
    [
        ("--sizes", "8"),
        ("--sizes", "32x32x32"),
        ("--classes", "1"),
        ("--dim", "12"),
        ("--dim", "16", "--model", "universal"),
        ("--device", "nowhere"),
        ("-o", "nowhere/speed.json"),
    ],
)
def test_wrong_options_end_in_one_line(speed, options):
    assert speed(*options).is_bad_input()
