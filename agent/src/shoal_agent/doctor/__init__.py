"""``shoal-agent doctor``: looks at everything an agent depends on, changes nothing, and says what to do."""

from shoal_agent.doctor.examination import Chart, examine
from shoal_agent.doctor.findings import Finding, State, is_well

__all__ = ["Chart", "Finding", "State", "examine", "is_well"]
