import torch

from benchmarks.drawn import concepts, few_rows


def test_scaled_columns_of_few_rows_stay_correlated():
    x, labels = few_rows(60, 200, 0.5, 1)
    assert torch.equal(labels.unique(), torch.tensor([0, 1]))
    scaled = (x - x.mean(0)) / x.std(0)
    values = torch.linalg.svdvals(scaled)
    assert values[0] > 5 * values[30]
    _, other = few_rows(60, 200, 0.5, 2)
    assert not torch.equal(labels, other)


def test_concepts_are_told_by_the_rows():
    x, sets = concepts(400, 30, 3, 1)
    wide = torch.cat([x, torch.ones(400, 1)], 1)
    for labels in sets.values():
        weight = torch.linalg.lstsq(wide, 2.0 * labels[:, None] - 1).solution
        right = ((wide @ weight)[:, 0] > 0) == (labels > 0)
        assert 0.7 < float(right.double().mean()) < 1
