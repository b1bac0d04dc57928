"""What jsonargparse says, in one line."""

from __future__ import annotations

from anyformer.parsing.messages import condense


def test_the_many_lines_of_jsonargparse_become_one() -> None:
    assert condense("one line") == "one line"
    nested = """Parser key "model":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'toy.Task'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'toy.Cls':
        Parser key "transformer.d_model":
          Expected a <class 'int'>. Got value: wide
    - Expected a <class 'NoneType'>
  Given value type: <class 'dict'>
  Given value: {'class_path': 'Cls'}"""
    assert condense(nested) == "model.transformer.d_model must be int, got wide"
