"""How annotations are enforced in tests: AMI_CHECK_SHAPES=1 pytest checks types and shapes of every call in CHECKED.

Annotations such as Float[Tensor, "B T D"] name axes; within one call a name stands for one size, `*E` for any number of
axes and "" for a scalar. beartype checks the types; it lets an int stand for a float, as Python does.
"""

from __future__ import annotations

from beartype import BeartypeConf, beartype

CHECKED = ["modules", "agent.planning"]
CHECKER = "tests.shapes.checked"

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
