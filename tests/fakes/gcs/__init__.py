"""A strict fake of Google Cloud Storage's JSON API, served over HTTP on the loopback interface.

It is stricter than a friendly emulator on purpose: unknown query parameters are refused, preconditions
hold on every verb and are decided under one lock together with their effect, checksums are verified, and
faults can be injected before and after a request's effect. ``STORAGE_EMULATOR_HOST`` makes the real
google-cloud-storage client (and gcsfs) talk to it::

    with FakeGcs(buckets=["runs"]) as fake:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake.url)

Written from https://cloud.google.com/storage/docs/json_api/v1 and the pages on request preconditions,
resumable uploads and object composition.
"""

from tests.fakes.gcs.api import FakeGcs
from tests.fakes.gcs.objects import ApiError, Buckets, Object, Preconditions
from tests.fakes.http import Fault, Request

__all__ = ["ApiError", "Buckets", "FakeGcs", "Fault", "Object", "Preconditions", "Request"]
