"""Who calls."""

KEY = "ok_a_callers_key"
