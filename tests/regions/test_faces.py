from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from scipy.spatial import HalfspaceIntersection

import fsboundary as fsb
from fsboundary import ArgumentError, Status
from support.flips.oracles import make_problem
from support.flips.run_family import draw
from support.regions.attacks import changed, wide
from support.regions.hunting import crowd

KINDS = ["unbounded", "nonnegative", "box"]


def half_spaces(
    head: fsb.LinearHead, i: int
) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]]]:
    """Return rows and offsets of ``a.z + c >= 0``, and (class, coordinate) of each."""
    others = [k for k in range(head.num_classes) if k != i]
    low, high = (t.numpy() for t in head.domain.limits(head.weight))
    eye = np.eye(head.num_features)
    lows, highs = np.flatnonzero(np.isfinite(low)), np.flatnonzero(np.isfinite(high))
    rows = np.vstack([(head.weight[i] - head.weight[others]).numpy(), eye[lows], -eye[highs]])
    offsets = np.concatenate([(head.bias[i] - head.bias[others]).numpy(), -low[lows], high[highs]])
    names = [(k, -1) for k in others] + [(-1, int(q)) for q in [*lows, *highs]]
    return rows, offsets, names


def names_of(faces: fsb.RegionFaces) -> list[tuple[int, int]]:
    return list(zip(faces.classes.tolist(), faces.coordinates.tolist(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("k", "d"), [(2, 1), (4, 2), (9, 2), (7, 3), (12, 5)])
def test_agrees_with_a_linear_program_for_each_constraint(k: int, d: int, kind: str) -> None:
    head, _ = make_problem(k, d, kind, rows=1, seed=k + d)
    seen = 0
    for i in range(k):
        rows, offsets, names = half_spaces(head, i)
        free = [(None, None)] * d
        inside = linprog(
            np.append(np.zeros(d), -1.0),
            A_ub=np.column_stack([-rows, np.linalg.norm(rows, axis=1)]),
            b_ub=offsets,
            bounds=[*free, (None, 1)],
        )
        faces = fsb.region_faces(head, i)
        if inside.status == 2 or -inside.fun < 0:
            assert faces.region == Status.INFEASIBLE
            assert len(faces.classes) == 0
            continue
        want = []
        for s, name in enumerate(names):
            rest = np.arange(len(rows)) != s
            lowest = linprog(rows[s], A_ub=-rows[rest], b_ub=offsets[rest], bounds=free)
            if lowest.status == 3 or lowest.fun + offsets[s] < -1e-9:
                want.append(name)
        assert names_of(faces) == want
        assert faces.region == Status.CONVERGED
        assert faces.ok.all()
        gone = [k for k, _ in names if k >= 0 and (k, -1) not in want]
        assert list(faces.redundant_classes) == gone
        limits = [q for s, (_, q) in enumerate(names) if q >= 0 and names[s] not in want]
        if kind != "box":
            assert list(faces.redundant_limits) == limits
        seen += len(gone)
    assert seen or k <= 4


@pytest.mark.parametrize("d", [2, 3])
def test_agrees_with_qhull(d: int) -> None:
    compared = 0
    for seed in range(4):
        head, _ = make_problem(8, d, "box", rows=1, seed=seed)
        for i in range(8):
            faces = fsb.region_faces(head, i)
            if faces.region != Status.CONVERGED:
                continue
            rows, offsets, names = half_spaces(head, i)
            size = np.linalg.norm(rows, axis=1)
            ball = linprog(
                np.append(np.zeros(d), -1.0),
                A_ub=np.column_stack([-rows, size]),
                b_ub=offsets,
                bounds=[(None, None)] * (d + 1),
            )
            scaled = np.column_stack([-rows, -offsets]) / size[:, None]
            dual = HalfspaceIntersection(scaled, ball.x[:d])
            assert names_of(faces) == [names[s] for s in sorted(dual.dual_vertices)]
            compared += 1
    assert compared > 12


@pytest.mark.parametrize("kind", KINDS)
def test_witnesses_and_the_region(kind: str) -> None:
    head, z = make_problem(10, 4, kind, rows=300, seed=1)
    for i in range(10):
        faces = fsb.region_faces(head, i)
        if faces.region != Status.CONVERGED:
            continue
        rows, offsets, names = half_spaces(head, i)
        values = wide(faces.witnesses) @ rows.T.astype(np.longdouble) + offsets
        for f, name in enumerate(names_of(faces)):
            broken = [s for s in range(len(names)) if values[f, s] < 0]
            assert [names[s] for s in broken] == [name]
        holds = (z @ faces.normals.T + faces.offsets >= 0).all(dim=1)
        assert torch.equal(holds, head.predict(z) == i)


def test_a_region_by_hand() -> None:
    # class 0 is the square [0, 1]²; class 5 copies class 1, class 6 lies behind it, 7 behind 0
    weight = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1], [5, 5], [1, 0], [1, 0], [0, 0]]).float()
    bias = torch.tensor([0.0, -1.0, -1.0, -3.0, -99.0, -1.0, -2.0, -1.0])
    head = fsb.LinearHead(weight, bias, fsb.Domain.nonnegative())
    faces = fsb.region_faces(head, 0)
    assert faces.classes.tolist() == [1, 2, -1, -1]
    assert faces.coordinates.tolist() == [-1, -1, 0, 1]
    assert faces.normals.tolist() == [[-1, 0], [0, -1], [1, 0], [0, 1]]
    assert faces.offsets.tolist() == [1, 1, 0, 0]
    assert faces.redundant_classes == (3, 4, 5, 6, 7)
    assert faces.redundant_limits == ()
    # its copy leaves class 1 without its own interior; so does class 0 to class 7
    for i in (6, 7):
        assert fsb.region_faces(head, i).region == Status.INFEASIBLE
    within = fsb.Domain.box(torch.tensor([0.5, 0.25]), torch.tensor([9.0, 0.25]))
    line = fsb.region_faces(head, 0, within)
    # on the line y = 1/4 the region is 1/2 <= x <= 1
    assert line.classes.tolist() == [1, -1]
    assert line.coordinates.tolist() == [-1, 0]
    assert line.offsets.tolist() == [1.0, -0.5]
    assert line.redundant_limits == (0,)
    assert line.witnesses[:, 1].tolist() == [0.25, 0.25]
    assert fsb.region_faces(head, 4, within).region == Status.INFEASIBLE


def test_planes_that_agree_up_to_scale_leave_one_or_are_left_open() -> None:
    weight = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    faces = fsb.region_faces(fsb.LinearHead(weight, torch.tensor([0.0, -1.0, -2.0, -1.0])), 0)
    assert 3 in faces.classes.tolist()
    assert {1, 2} & set(faces.classes.tolist())
    assert set(faces.status.tolist()) <= {Status.CONVERGED, Status.UNDECIDED}
    touching = fsb.LinearHead(torch.tensor([[0.0], [1.0], [-1.0]]), None)
    point = fsb.region_faces(touching, 0)
    # the region is one point: rounding hides whether it has an interior
    assert point.region in (Status.UNDECIDED, Status.INFEASIBLE)


def test_bad_arguments() -> None:
    head, _ = make_problem(3, 2, "nonnegative", rows=1, seed=0)
    for i in (3, -1, 1.0, True):
        with pytest.raises(ArgumentError, match="0 to 2"):
            fsb.region_faces(head, i)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ArgumentError, match="a box of width 3"):
        fsb.region_faces(head, 0, fsb.Domain.box(torch.zeros(3), torch.ones(3)))
    with pytest.raises(ArgumentError, match="does not meet the head"):
        fsb.region_faces(head, 0, fsb.Domain.box(-torch.ones(2), torch.tensor([-0.5, 1.0])))
    with pytest.raises(ArgumentError, match="a Domain"):
        fsb.region_faces(head, 0, (0, 1))  # type: ignore[arg-type]  # wrong on purpose
    point = fsb.Domain.box(torch.ones(2), torch.ones(2))
    with pytest.raises(ArgumentError, match="a domain of one point"):
        fsb.region_faces(head, 0, point)


@pytest.mark.parametrize("name", ["near_duplicates", "empty_regions", "corners", "wide_boxes"])
def test_the_listed_half_spaces_are_the_region_on_hostile_heads(name: str) -> None:
    for seed in range(2):
        case = draw(name, seed)
        head, z = case.head(), torch.tensor(case.features).double()
        rows = z[torch.isfinite(z).all(dim=1)]
        g = np.random.default_rng(seed)
        points = head.domain.clip(crowd(head, rows, g))
        for i in range(min(head.num_classes, 4)):
            faces = fsb.region_faces(head, i)
            size = faces.normals.abs() @ points.T.abs() + faces.offsets.abs()[:, None]
            value = faces.normals @ points.T + faces.offsets[:, None]
            inside = (value > 1e-12 * size).all(dim=0).numpy()
            if faces.region == Status.INFEASIBLE:
                # an empty region: every point has another class
                assert changed(head, wide(points), np.full(len(points), i), strict=True).all()
                continue
            source = np.full(int(inside.sum()), i)
            assert not changed(head, wide(points)[inside], source, strict=False).any()


@pytest.mark.parametrize("scale", [1e-100, 1e-6, 1e6, 1e100])
def test_scale_and_order_change_nothing(scale: float) -> None:
    head, _ = make_problem(9, 3, "nonnegative", rows=1, seed=4)
    other = fsb.LinearHead(head.weight * 2, head.bias * 2 * scale, head.domain)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    shuffled = fsb.LinearHead(head.weight[order], head.bias[order], head.domain)
    for i in range(9):
        want = fsb.region_faces(head, i)
        assert names_of(fsb.region_faces(other, i)) == names_of(want)
        index = int((order == i).nonzero())
        again = fsb.region_faces(shuffled, index)
        back = [(int(order[k]) if k >= 0 else -1, q) for k, q in names_of(again)]
        assert sorted(back) == sorted(names_of(want))


def test_a_region_far_from_the_origin() -> None:
    head, _ = make_problem(7, 2, "unbounded", rows=1, seed=2)
    shift = torch.tensor([1e6, -1e6]).double()
    moved = fsb.LinearHead(head.weight, head.bias - head.weight @ shift)
    for i in range(7):
        faces = fsb.region_faces(moved, i)
        want = names_of(fsb.region_faces(head, i))
        # rounding may hide that a half-space is redundant, and nothing else
        assert [n for n, good in zip(names_of(faces), faces.ok, strict=True) if good] == want
