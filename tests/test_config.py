"""Promises of from_dict: a configuration comes back from JSON as it was, or the field that is wrong is named."""

import pytest

from agent.config import Config, from_dict


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learn": {"clip": "x"}}, r"config.json has learn.clip = 'x', where float is expected"),
        ({"learn": {"batch": True}}, r"config.json has learn.batch = True, where int is expected"),
        ({"learn": {"batch": None}}, r"config.json has learn.batch = None, where int is expected"),
        ({"learn": {"clip": 10**400}}, r"config.json has learn.clip = 1000.*, where float is expected"),
        ({"learn": {"train_encoder": 1}}, r"config.json has learn.train_encoder = 1, where bool is expected"),
        ({"configurator": {"mode": 3}}, r"config.json has configurator.mode = 3, where 1 or 2 is expected"),
        ({"configurator": {"mode": True}}, r"config.json has configurator.mode = True"),
        ({"planner": {"action_repeat": "x"}}, r"config.json has planner.action_repeat = 'x', where int | None is"),
        ({"env_options": "abc"}, r"config.json has env_options = 'abc', where list is expected"),
        ({"env_options": ["a", 1]}, r"config.json has env_options = \('a', 1\), where tuple"),
        ({"learn": []}, r"config.json has learn = \[\], where an object is expected"),
        ([], r"config.json has \[\], where an object is expected"),
        ({"learn": {"bacth": 1, "step": 2}}, r"fields that this version does not know: bacth, step"),
    ],
)
def test_the_field_that_is_wrong_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        from_dict(Config, values)


def test_whole_numbers_become_floats():
    assert isinstance(from_dict(Config, {"learn": {"clip": 2}}).learn.clip, float)
