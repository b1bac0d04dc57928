"""Steps as they come and the whole continuation: ids, text and end."""

from __future__ import annotations

import torch

from anyformer.generation.config import GenerationConfig
from tests.helpers.generators import build, ids_of, letters, text


def test_a_stop_string_may_span_tokens() -> None:
    generator, prompts = build(), text(4)
    free = letters(ids_of(generator.generate(prompts, GenerationConfig(max_new_tokens=12)))[0])
    stop = free[4:7]
    place = free.index(stop)
    config = GenerationConfig(max_new_tokens=12, stop=(stop, "zz"))
    ((found,),) = generator.generate(prompts, config)
    assert found.text == free[:place] and found.ended == "stop" and letters(found.ids) == free[: place + 3]
    steps = [step for (step,) in generator.stream(prompts, config)]
    assert "".join(step.text for step in steps) == free[:place]
    assert [step.id for step in steps] == found.ids
    assert [step.ended for step in steps] == [""] * (place + 2) + ["stop"]


def test_tokens_stream_out_one_by_one() -> None:
    generator, prompts = build(), text(4, 2)
    config = GenerationConfig(max_new_tokens=3)
    whole = ids_of(generator.generate(prompts, config))
    stream = generator.stream(prompts, config)
    for n in range(3):
        steps = next(stream)
        assert not torch.is_inference_mode_enabled(), "between two steps the caller's mode holds"
        assert [(step.prompt, step.sample, step.id) for step in steps] == [
            (i, 0, own[n]) for i, own in enumerate(whole)
        ]
        assert [step.text for step in steps] == [letters(own[n : n + 1]) for own in whole]
        assert {step.ended for step in steps} == {"length" if n == 2 else ""}
    assert next(stream, None) is None
