"""GET /metrics: a server's numbers, as Prometheus reads them.

For whoever has a token with the scope `metrics` (or `admin`); where nobody is asked for a token, which is on loopback
alone, for everybody on the machine. They name no auction and no agent.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from tokenauction.server.rest import ERRORS, Who, context_of, need

router = APIRouter(responses=ERRORS)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {CONTENT_TYPE_LATEST: {"schema": {"type": "string"}}}}},
)
async def read_metrics(request: Request, who: Who) -> Response:
    """Counters, histograms and queue depths, in Prometheus's text format."""
    need(who, "metrics")
    return Response(context_of(request).house.telemetry.metrics.text(), media_type=CONTENT_TYPE_LATEST)
