"""What the fakes of services have in common: an HTTP server with a request log and faults on order."""

from tests.fakes.http.faults import Fault, Faults
from tests.fakes.http.server import Answer, HttpFake, Request

__all__ = ["Answer", "Fault", "Faults", "HttpFake", "Request"]
