"""``shoal-convert doctor``: looks at everything that packing and pushing depend on, and says what to do.

Each check is independent and tells its cure; what can't be asked because something before it failed is skipped.
"""

from shoal_converter.doctor.access import examine_access
from shoal_converter.doctor.findings import Finding
from shoal_converter.doctor.installation import examine_installation

__all__ = ["Finding", "examine_access", "examine_installation"]
