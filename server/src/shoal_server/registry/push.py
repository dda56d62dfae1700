"""What happens when a manifest is pushed or taken away.

Owns the procedure: parse, check, store the bytes, then record everything in one transaction, with the signed list and
the audit. Leaves HTTP to `manifest_routes`, the rules of a bundle to `admission`.

Invariant: a model version exists exactly when its manifest was admitted. In development trust it is on the signed list
from then on; else it is `unsigned` until a release key elsewhere puts it there.
"""

from dataclasses import dataclass
from typing import Any

import msgspec
from sqlmodel import Session

from shoal_protocol.canonical import sha256_digest
from shoal_server.access import Principal, audit
from shoal_server.errors import ConflictError, NotFoundError
from shoal_server.registry import oci_store, store
from shoal_server.registry.admission import Admission, AdmittedBundle
from shoal_server.registry.oci_documents import OciDocument, parse_document
from shoal_server.registry.onnx_check import OnnxChecker
from shoal_server.registry.refusals import RefusedError
from shoal_server.registry.tables import ModelVersion
from shoal_server.registry.versions import (
    TAG_RE,
    TagMeaning,
    VersionState,
    check_new_version,
    meaning_of_tag,
    next_counter,
)
from shoal_server.services import Services


@dataclass(frozen=True)
class Pushed:
    """A manifest that was taken."""

    digest: str
    subject: str | None


class ImmutableError(ConflictError):
    """Something that never changes was to be deleted."""

    code = "immutable"
    status = 405


class Pushes:
    """The procedure over one program's parts.

    Args:
        program: database, blobs, clock, trust and signals are used.
        checker: looks at model files.
    """

    def __init__(self, program: Services, checker: OnnxChecker) -> None:
        self._program = program
        self._admission = Admission(program.blobs, checker)

    def put_manifest(
        self, repository: str, reference: str, raw: bytes, *, media_type: str, principal: Principal, request_id: str
    ) -> Pushed:
        """Take a manifest under a digest or a tag.

        Args:
            repository: name of the model or other repository.
            reference: `sha256:…`, which must be the manifest's own, or a tag.
            raw: the manifest's bytes, which are stored as they are.
            media_type: the request's Content-Type.
            principal: who pushes; at least a releaser.
            request_id: for the audit.

        Raises:
            RefusedError: it breaks a rule; nothing was recorded.
            ConflictError: the version exists with another digest.
        """
        document = parse_document(raw, media_type)
        digest = sha256_digest(raw)
        by_digest = ":" in reference
        if by_digest and reference != digest:
            raise RefusedError(
                "digest", f"the manifest has digest {digest}, not {reference}", oci_code="DIGEST_INVALID"
            )
        if not by_digest and TAG_RE.fullmatch(reference) is None:
            raise RefusedError("tag", f"{reference!r:.140} is not a tag", oci_code="TAG_INVALID")
        meaning = None if by_digest else meaning_of_tag(reference, document.artifact_type)
        with self._program.database.read() as session:
            self._check_parts(session, repository, document)
        bundle = self._admit(repository, reference, raw, digest) if meaning is TagMeaning.VERSION else None
        self._program.blobs.put(raw)
        with self._program.database.write() as session:
            oci_store.lock_contents(session)
            self._check_parts(session, repository, document)  # again: some may have been collected since
            if not self._program.blobs.has(digest):
                self._program.blobs.put(raw)
            now = self._program.clock()
            oci_store.add_manifest(session, repository, digest, document, size=len(raw), now=now)
            record = _Recorder(self._program, session, principal, request_id)
            if meaning is TagMeaning.VERSION:
                record.version(repository, reference, raw, digest, bundle)
            elif meaning is TagMeaning.ALIAS:
                record.alias(repository, reference, digest)
            elif meaning is TagMeaning.PLAIN:
                oci_store.set_tag(session, repository, reference, digest)
        self._program.signals.bump("models")
        return Pushed(digest, document.subject)

    def delete_manifest(self, repository: str, reference: str, *, principal: Principal, request_id: str) -> None:
        """Take a tag, an alias or an artifact away.

        Raises:
            ImmutableError: it is, or names, a version.
            NotFoundError: there is no such thing.
        """
        with self._program.database.write() as session:
            if ":" in reference:
                stored = oci_store.manifest(session, repository, reference)
                if store.version_of_digest(session, stored.digest) is not None:
                    raise _immutable(repository, reference)
                oci_store.remove_manifest(session, repository, stored.digest)
            elif store.find_version(session, repository, reference) is not None:
                raise _immutable(repository, reference)
            elif not oci_store.remove_tag(session, repository, reference):
                _Recorder(self._program, session, principal, request_id).remove_alias(repository, reference)
        self._program.signals.bump("models")

    @staticmethod
    def _check_parts(session: Session, repository: str, document: OciDocument) -> None:
        missing = [blob for blob in document.blobs if not oci_store.has_blob(session, repository, blob)]
        missing += [part for part in document.manifests if not oci_store.has_manifest(session, repository, part)]
        if missing:
            what = f"push these to {repository} first: {', '.join(missing[:10])}"
            raise RefusedError("blobs_present", what, oci_code="MANIFEST_BLOB_UNKNOWN")

    def _admit(self, repository: str, version: str, raw: bytes, digest: str) -> AdmittedBundle | None:
        """Check a bundle, outside any transaction; None when this very version is there already."""
        with self._program.database.read() as session:
            existing = store.find_version(session, repository, version)
            taken = store.digest_of_name(session, repository, version)
        check_new_version(f"{repository}:{version}", existing_digest=taken, digest=digest)
        if existing is not None:
            return None

        def in_repository(blob: str) -> bool:
            with self._program.database.read() as session:
                return oci_store.has_blob(session, repository, blob)

        return self._admission.admit(raw, model=repository, version=version, in_repository=in_repository)


class _Recorder:
    """Writes what one push changes, with its audit rows, inside the push's transaction."""

    def __init__(self, program: Services, session: Session, principal: Principal, request_id: str) -> None:
        self._program = program
        self._session = session
        self._actor = principal.actor
        self._request_id = request_id
        self._now = program.clock()

    def version(self, model: str, version: str, raw: bytes, digest: str, bundle: AdmittedBundle | None) -> None:
        session = self._session
        store.lock_model(session, model)
        name = f"{model}:{version}"
        check_new_version(name, existing_digest=store.digest_of_name(session, model, version), digest=digest)
        if store.find_version(session, model, version) is not None:
            return
        assert bundle is not None
        counter = next_counter(store.used_counters(session, model))
        signs_here = self._program.trust.signs_releases(session)
        row = ModelVersion(
            model=model,
            version=version,
            digest=digest,
            counter=counter,
            state=(VersionState.RELEASED if signs_here else VersionState.UNSIGNED).value,
            task=bundle.info.task,
            framework=bundle.info.framework,
            size=bundle.manifest.total_bytes,
            variants=msgspec.to_builtins(bundle.info.variants),
            created_at=self._now,
            created_by=self._actor,
        )
        store.add_version(session, row)
        if signs_here:
            trust = self._program.trust
            trust.publish_release(session, model=model, version=version, manifest_raw=raw, counter=counter)
        self._audit("model.push", f"model:{name}", after={"digest": digest, "counter": counter})

    def alias(self, model: str, alias: str, digest: str) -> None:
        found = store.version_of_digest(self._session, digest)
        if found is None or found.model != model:
            what = f"the alias {alias!r} can name only a version of {model}, and {digest} is none"
            raise RefusedError("alias", what, hint="push the bundle under its version first", oci_code="TAG_INVALID")
        before = store.set_alias(
            self._session, model=model, name=alias, version_name=found.version, by=self._actor, now=self._now
        )
        if before != found.version:
            self._audit("model.alias", f"model:{model}@{alias}", before=before, after=found.version)

    def remove_alias(self, model: str, alias: str) -> None:
        try:
            before = store.remove_alias(self._session, model=model, name=alias, by=self._actor, now=self._now)
        except NotFoundError as error:
            raise NotFoundError(f"{model} has no tag {alias!r}", oci_code="MANIFEST_UNKNOWN") from error
        self._audit("model.alias", f"model:{model}@{alias}", before=before)

    def _audit(self, action: str, subject: str, *, before: Any = None, after: Any = None) -> None:
        audit.record(
            self._session,
            actor=self._actor,
            action=action,
            subject=subject,
            before=before,
            after=after,
            request_id=self._request_id,
            now=self._now,
        )


def _immutable(repository: str, reference: str) -> ImmutableError:
    return ImmutableError(
        f"{repository} {reference} is a model version, which no OCI client may delete",
        hint="when nothing needs it any more: shoalctl model delete NAME:VERSION",
        oci_code="UNSUPPORTED",
    )
