"""The command that runs the tests under load counts what pytest reports."""

from under_load import Run, read_report

REPORT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites name="pytest tests"><testsuite name="pytest" errors="1" failures="1" tests="5">
<testcase classname="tests.a" name="passes" time="0.1" />
<testcase classname="tests.a" name="fails" time="0.1"><failure>why</failure></testcase>
<testcase classname="tests.a" name="is skipped"><skipped type="pytest.skip" /></testcase>
<testcase classname="tests.b" name="has no fixture"><error>why</error></testcase>
<testcase classname="tests.b" name="passes too" time="0.1"><system-out>x</system-out></testcase>
</testsuite></testsuites>
"""


def test_what_pytest_reports_is_counted(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(REPORT, encoding="utf-8")
    run = read_report(7, report, 1.5, complete=True)
    names = ("tests.a::fails", "tests.b::has no fixture")
    assert run == Run(7, 2, 2, 1, 1.5, names, complete=True)
    assert run.row().split() == ["7", "2", "2", "1", "2"]


def test_a_run_without_a_report_is_not_complete(tmp_path):
    run = read_report(7, tmp_path / "none.xml", 1.0, complete=True)
    assert not run.complete
    assert "crashed" in run.row()
