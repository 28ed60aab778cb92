"""Several processes against one."""

from benchmarks import processes


def test_each_way_has_a_line_and_the_same_minimum(capsys):
    sizes = ["--rows=600", "--features=8", "--classes=3", "--rounds=1", "--ways=rows"]
    processes.main(sizes)
    cells = [
        [cell.strip() for cell in row.split("|")[1:-1]]
        for row in capsys.readouterr().out.splitlines()[-2:]
    ]
    assert [row[:2] for row in cells] == [["rows", "1"], ["rows", "2"]]
    assert cells[0][3] == "1.00" and abs(float(cells[0][-1]) - float(cells[1][-1])) < 1e-6
