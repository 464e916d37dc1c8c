"""One offline page of a run or of an ablation; reads JSON and pictures, and needs neither torch nor an environment."""

from agent.report.page import write

__all__ = ["write"]
