"""What the tests of whole servers share; each module has its own `server`, at its own pace."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from operator_client import logged_in
from shoal_server.bootstrap import Server


@pytest.fixture
def operator(server: Server) -> Iterator[httpx2.Client]:
    with logged_in(server) as client:
        yield client
