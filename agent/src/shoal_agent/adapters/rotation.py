"""Getting this device new credentials when the signed assignment asks for them.

A thread that lives while there is something to do: it makes a new key, has the server hand out a secret for it, stores
both, and shows them to the server. Each step can be repeated after a cut at any point; until the last one what the
device held before holds, too (see `shoal_agent.adapters.credentials`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

import msgspec

from shoal_agent.adapters.challenge import fetch_challenge, refusal
from shoal_agent.adapters.credentials import Credentials, Key
from shoal_agent.adapters.device_key import new_key, public_pem, signature
from shoal_agent.adapters.http_client import HttpClient
from shoal_agent.domain.backoff import Backoff
from shoal_agent.errors import TransportError
from shoal_protocol.errors import PeerError
from shoal_protocol.trust.enrolment import (
    CONFIRMATION_PATH,
    CREDENTIAL_PATH,
    RotationReply,
    RotationRequest,
    rotation_proof_message,
)

_JSON: Mapping[str, str] = {"Content-Type": "application/json"}
_log = logging.getLogger(__name__)


class Rotation:
    """The rotation of one device's credentials.

    Args:
        credentials: Those held.
        http: The server, with these credentials.
        backoff: Bounds of the wait after failures.
        chance: Gives uniform draws from [0, 1).
    """

    def __init__(
        self, credentials: Credentials, http: HttpClient, *, backoff: Backoff, chance: Callable[[], float]
    ) -> None:
        self._credentials, self._http = credentials, http
        self._backoff, self._chance = backoff, chance
        self._wanted = 0
        self._key: Key | None = None
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.fault = ""
        """Why the server refused the last try; empty: it did not."""

    def wish(self, credential: int = 0) -> None:
        """Get the credentials of a number, in the background, unless they are held; 0: finish what was begun."""
        with self._lock:
            self._wanted = max(self._wanted, credential)
            is_busy = self._thread is not None and self._thread.is_alive()
            if self._is_due() and not is_busy and not self._stopping.is_set():
                self._thread = threading.Thread(target=self._run, name="credentials", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """End; what was begun is finished at the next start."""
        self._stopping.set()
        thread = self._thread
        if thread is not None:
            thread.join(timeout=5.0)

    def _is_due(self) -> bool:
        return not self._credentials.is_confirmed or self._credentials.identity.credential < self._wanted

    def _run(self) -> None:
        tries = 0
        while not self._has_ended():
            try:
                self.turn()
                tries = 0
            except TransportError as error:
                tries += 1
                _log.info("credentials: %s; trying again", error)
            except (PeerError, OSError) as error:
                tries += 1
                _log.log(logging.DEBUG if self.fault == str(error) else logging.WARNING, "credentials: %s", error)
                self.fault = str(error)
            except Exception:  # noqa: BLE001 - the boundary of the thread
                tries += 1
                _log.exception("credentials: a try failed")
            if tries:
                self._stopping.wait(self._backoff.delay_s(tries, self._chance()))

    def _has_ended(self) -> bool:
        """End the thread where nothing is due; under the lock, so that no wish finds it alive and yet past its end."""
        with self._lock:
            if self._is_due() and not self._stopping.is_set():
                return False
            self._http.close()  # months may pass until the next time
            self._thread = None
            return True

    def turn(self) -> None:
        """Take the next step that is due.

        Raises:
            PeerError: The server can't be reached, or refuses.
            OSError: What came can't be stored.
        """
        if not self._credentials.is_confirmed:
            self._confirm()
        elif self._is_due():
            self._take_out()

    def _take_out(self) -> None:
        """Have new credentials handed out, and store them."""
        held = self._credentials.key()
        if held is None:
            raise PeerError("this device's private key is gone", hint="let the device join again")
        if self._key is None:
            self._key = self._credentials.keep_key(new_key())
        device, public = self._credentials.identity.device, public_pem(self._key.pem)
        challenge = fetch_challenge(self._http, device)
        message = rotation_proof_message(challenge, device, public)
        request = RotationRequest(
            public_key=public,
            challenge=challenge,
            proof=signature(held.pem, message),
            new_proof=signature(self._key.pem, message),
        )
        body = self._post(CREDENTIAL_PATH, msgspec.json.encode(request))
        try:
            reply = msgspec.json.decode(body, type=RotationReply)
        except msgspec.DecodeError as error:
            raise TransportError(f"POST {CREDENTIAL_PATH}: the answer does not parse: {error}") from error
        self._credentials.adopt(reply.secret, credential=reply.credential, key=self._key)
        self._key = None

    def _confirm(self) -> None:
        """Show the new credentials; from then on the server takes no others."""
        self._post(CONFIRMATION_PATH, b"")
        if not self._credentials.is_confirmed:  # else they were refused, and those before held
            self._credentials.confirm()
        self.fault = ""
        _log.info("this device now holds credentials %d", self._credentials.identity.credential)

    def _post(self, path: str, body: bytes) -> bytes:
        status, _, answer = self._http.exchange("POST", path, headers=_JSON, body=body)
        if status >= 500:
            raise TransportError(f"POST {path}: the server answered {status}", status=status)
        if status != 200:
            raise refusal(status, answer, hint="look at the device: shoalctl device show")
        return answer
