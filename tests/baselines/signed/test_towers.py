"""Parts of the two-tower row: events by sign, and attention, against plain loops."""

from __future__ import annotations

import numpy as np
import torch

from conrec.baselines.signed.towers import FromElsewhere, ItemTower, of_sign


def _events(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(seed)
    item, feedback = random.integers(0, 9, (5, 7)), random.integers(-1, 2, (5, 7))
    for row, length in enumerate([7, 4, 0, 1, 6]):
        item[row, length:], feedback[row, length:] = -1, 0
    return torch.from_numpy(item), torch.from_numpy(feedback)


def test_events_of_a_sign_keep_their_order_and_are_counted() -> None:
    item, feedback = _events()
    for sign in (-1, 0, 1):
        own, place, count = of_sign(item, feedback, sign)
        for row in range(len(item)):
            expected = [
                int(one) for one, mark in zip(item[row], feedback[row], strict=True) if one >= 0 and mark == sign
            ]
            assert own[row].tolist() == expected + [-1] * (own.shape[1] - len(expected))
            there = place[row, : len(expected)]
            assert item[row, there].tolist() == expected
            assert set(feedback[row, there].tolist()) <= {sign}
            assert (there.diff() > 0).all()
            for seen in range(item.shape[1] + 1):
                among = sum(int(item[row, place]) >= 0 and int(feedback[row, place]) == sign for place in range(seen))
                assert int(count[row, seen]) == among


def test_no_events_at_all() -> None:
    none = torch.empty((2, 0), dtype=torch.int64)
    own, place, count = of_sign(none, none, 0)
    assert own.shape == place.shape == (2, 0)
    assert count.tolist() == [[0], [0]]


def test_attention_to_another_sign_is_scaled_dot_product_attention_over_what_is_known() -> None:
    torch.manual_seed(0)
    layer = FromElsewhere(6, 2, 0.0).double().requires_grad_(False)
    asking, events = torch.randn(2, 3, 6).double(), torch.randn(2, 4, 6).double()
    known = torch.rand(2, 3, 4) < 0.5
    known[..., 0] = True
    found = layer(asking, events, known)
    for row in range(2):
        key, value = layer.key_value(events[row]).split(6, dim=1)
        for place in range(3):
            query, heads = layer.query(asking[row, place]), []
            for part in (slice(0, 3), slice(3, 6)):
                there = [one for one in range(4) if known[row, place, one]]
                energy = np.array([float(query[part] @ key[one, part]) / np.sqrt(3) for one in there])
                weight = np.exp(energy) / np.exp(energy).sum()
                heads.append(sum(share * value[one, part] for share, one in zip(weight, there, strict=True)))
            expected = layer.out(torch.cat([torch.as_tensor(one) for one in heads]))
            torch.testing.assert_close(found[row, place], expected)


def test_an_item_is_a_vector_of_its_own_and_its_content() -> None:
    content = torch.tensor([[0.5, 0.5, 1.0], [1.0, 0.0, -2.0]])
    tower = ItemTower(content, 4)
    assert tower.project is not None
    assert tower.item.weight.shape == (2, 4)
    expected = tower.item.weight + content @ tower.project.weight.T
    torch.testing.assert_close(tower(), expected)
    bare = ItemTower(torch.empty(2, 0), 4)
    assert bare() is bare.item.weight
    assert set(tower.state_dict()) == {"item.weight", "project.weight"}
