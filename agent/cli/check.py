"""`run_agent.py check`: can this world be learned from?"""

from __future__ import annotations

from agent.cli.common import _finish, _json_flag, _parse


def check(arguments: list[str], command_line: list[str]) -> int:
    """run_agent.py check ENV_ID."""
    from agent.inspection import check as checking

    arguments, as_json = _json_flag(arguments)
    return checking.command(arguments, as_json, _parse, _finish)
