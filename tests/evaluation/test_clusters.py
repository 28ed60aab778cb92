"""k-means finds what is there and says when it can't."""

import pytest
import torch
from sklearn.cluster import KMeans

from linprobe.evaluation.clusters import cluster
from linprobe.runtime.errors import LinprobeError


def blobs(n, spread=0.05):
    generator = torch.Generator().manual_seed(2)
    centres = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0]])
    own = torch.arange(n) % 4
    return centres[own] + spread * torch.randn(n, 2, generator=generator), own


def test_finds_separate_groups_in_both_splits():
    (train, own), (test, test_own) = blobs(200), blobs(80)
    found, test_found = cluster(train, test, 4, torch.Generator().manual_seed(0))
    name = found[:4]
    assert sorted(name.tolist()) == [0, 1, 2, 3]
    assert torch.equal(found, name[own])
    assert torch.equal(test_found, name[test_own])


def test_inertia_is_about_that_of_scikit_learn():
    x = torch.rand(800, 5, generator=torch.Generator().manual_seed(1))
    found, _ = cluster(x, x[:1], 12, torch.Generator().manual_seed(0))
    centres = torch.stack([x[found == k].mean(0) for k in range(12)])
    inertia = float((x - centres[found]).square().sum())
    expected = KMeans(12, n_init=1, random_state=0).fit(x.numpy()).inertia_
    assert inertia == pytest.approx(expected, rel=0.05)


def test_generator_decides():
    x = torch.rand(300, 5, generator=torch.Generator().manual_seed(1))
    one, again, other = (cluster(x, x, 9, torch.Generator().manual_seed(s))[0] for s in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_fewer_different_rows_than_clusters():
    x = torch.ones(6, 2)
    found, _ = cluster(x, x, 3, torch.Generator().manual_seed(0))
    assert len(found.unique()) == 1


@pytest.mark.parametrize("number", [0, 7])
def test_refuses_impossible_numbers(number):
    x = torch.rand(6, 2, generator=torch.Generator().manual_seed(1))
    with pytest.raises(LinprobeError, match=f"{number} clusters of 6 samples; expected between"):
        cluster(x, x, number, torch.Generator())
