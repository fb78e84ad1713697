"""EoMT with the weights of transformers' EoMT, and the reverse: equal logits and masks."""

from __future__ import annotations

import pytest
import torch

from segkit.engine.importers.eomt_names import from_hugging_face, to_hugging_face
from tests.helpers.hugging_face_eomt import PEERS, SIZE_PX, build_ours, build_peer

IMAGES = torch.rand(2, 3, SIZE_PX, SIZE_PX, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", PEERS)
def test_transformers_weights_give_its_logits_and_masks(name: str) -> None:
    peer, ours = build_peer(name), build_ours(name)
    ours.load(from_hugging_face(peer.state_dict()).weights)
    check(ours, peer)


@pytest.mark.parametrize("name", PEERS)
def test_our_weights_give_our_logits_and_masks_in_transformers(name: str) -> None:
    peer, ours = build_peer(name), build_ours(name)
    missing, unexpected = peer.load_state_dict(to_hugging_face(ours.state_dict()), strict=False)
    assert (sorted(missing), unexpected) == (["attn_mask_probs", "criterion.empty_weight"], [])
    check(ours, peer)


@pytest.mark.parametrize("name", PEERS)
def test_there_and_back(name: str) -> None:
    weights = build_ours(name).state_dict()
    back = from_hugging_face(to_hugging_face(weights)).weights
    assert weights.keys() == back.keys()
    assert all(torch.equal(weights[key], back[key]) for key in weights)


def check(ours: object, peer: object) -> None:
    with torch.no_grad():
        (outputs,) = ours.forward(IMAGES)  # type: ignore[attr-defined]
        expected = peer(IMAGES)  # type: ignore[operator]
    assert expected.masks_queries_logits.std() > 0.1  # otherwise nothing is compared
    torch.testing.assert_close(outputs.class_logits, expected.class_queries_logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(outputs.mask_logits, expected.masks_queries_logits, rtol=1e-4, atol=1e-4)
