"""What the tables of settings have in common: how they are closed, how they contradict, and their units."""

from pydantic import BaseModel, ConfigDict

KB, MB, GB, TB = 1_000, 1_000_000, 1_000_000_000, 1_000_000_000_000
MINUTE_S, HOUR_S, DAY_S, YEAR_S = 60, 3_600, 86_400, 31_536_000


class Clash(ValueError):
    """Two settings that are right one by one and wrong together. `names`: the likelier culprit first."""

    def __init__(self, problem: str, *names: str) -> None:
        super().__init__(problem)
        self.names = names


class FrozenTable(BaseModel):
    """Frozen, closed, and quiet about values. Code writes the attribute's name, sources the operator's."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True, hide_input_in_errors=True
    )
