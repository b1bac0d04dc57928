"""What the Generator relies on, of every method there is: led by hand through logits that are drawn."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from anyformer.generation.config import METHODS, GenerationConfig

ASKING = {"BeamSearch": {"n_beams": 3}, "Sampling": {"temperature": 1.0, "n_samples": 3}}
"""Of each method the options that ask for it, with three rows a prompt."""
N_PROMPTS, V, STOPS = 4, 7, (2, 5)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_leads_all_rows_to_their_end(method: type) -> None:
    config = GenerationConfig(6, stop_ids=STOPS, **ASKING[method.__name__])
    assert config.decoded_by is method
    prompts = [[1]] * N_PROMPTS
    rows = SimpleNamespace(
        options=config, prompt_ids=prompts, numbers=range(N_PROMPTS), of=SimpleNamespace(decode=None), are_scores=False
    )
    led, n = method(rows, config), N_PROMPTS * 3
    assert led.n_rows == 3
    for left in reversed(range(6)):
        before = led.ids
        assert len(before) == n and {len(own) for own in before} == {5 - left}
        before = [list(own) for own in before]
        steps, move = led.step(torch.randn(n, V), is_last=not left)
        assert len(steps) == (0 if method.not_streamed else n)
        if move is None:
            break
        if move.keep is not None:
            before = [before[i] for i in move.keep]
        for source, target in move.copies:
            before[target] = before[source]
        n = len(before)
        assert led.ids == [[*own, new] for own, new in zip(before, move.new, strict=True)]
    assert move is None, "at the last step at the latest"
    for continuations in led.continuations():
        assert len(continuations) == config.n_samples
        for each in continuations:
            assert not set(each.ids) & set(STOPS) and (len(each.ids) == 6) == (each.ended == "length")
