"""What ranks the texts of a search."""

import torch

from modeling_embinv import judge_embinv
from modeling_embinv.judge_embinv import Judge
from tests.tiny_models import bag_of_tokens, texts


def test_a_text_is_embedded_once(monkeypatch):
    """Edits of a later round that were there in an earlier one cost calls of the encoder for nothing.

    A vector of another text must not be taken for one's own, nor a known one forgotten in the call that needs it.
    """
    calls, ids = [], texts(12).view(2, 6, -1)
    encode = bag_of_tokens(calls)
    expected = encode(ids.flatten(0, 1)).view(2, 6, -1)
    for most in (2**17, 3):
        monkeypatch.setattr(judge_embinv, "MOST_KNOWN", most)
        calls.clear()
        judge = Judge(encode, 0.0)
        first, _ = judge.vectors(ids[:, :2])
        second, copies = judge.vectors(ids[:, [4, 1, 0, 4, 3]])
        assert torch.equal(first, expected[:, :2]) and torch.equal(second, expected[:, [4, 1, 0, 4, 3]])
        assert copies.tolist() == [[False, False, False, True, False]] * 2
        assert calls == [4, 4] and judge.num_calls == 8
        assert torch.equal(judge.vectors(ids)[0], expected)
        assert judge.num_calls == 12 if most > 3 else 12 <= judge.num_calls < 20
    assert len(judge.known) <= 12
