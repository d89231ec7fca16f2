"""The OpenAPI description, fuzzed: what fits it is answered as it says, what does not fit is refused as it says."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy
from schemathesis import Case, GenerationMode

from conrec.filtering.serving.description import describe
from conrec.filtering.serving.settings import ServeSettings
from tests.filtering.serving.conftest import Serve

EXAMPLES = 12
BOUNDED = settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))


def fuzz(cases: SearchStrategy[Case], met: set[int]) -> None:
    """Ask, and compare each answer with its description."""

    @given(case=cases)
    @BOUNDED
    def answers(case: Case) -> None:
        response = case.call()
        met.add(response.status_code)
        case.validate_response(response)

    answers()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:schemathesis.*")
def test_every_operation_answers_as_described(serve: Serve) -> None:
    served = serve(allow_hosts=("testserver",))  # as schemathesis calls it
    schema = schemathesis.openapi.from_asgi("/openapi.json", served.client.app)
    statuses: dict[tuple[str, str], set[int]] = {}
    for found in schema.get_all_operations():
        operation = found.ok()
        asks = bool(operation.body or operation.query)
        # Without parameters there is one request, and nothing that could be wrong with it.
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE) if asks else (GenerationMode.POSITIVE,):
            met = statuses.setdefault((operation.label, mode.value), set())

            fuzz(operation.as_strategy(generation_mode=mode), met)
    assert all(status < 500 for met in statuses.values() for status in met)
    ours = ("POST /v1/filter", "POST /v1/explain", "GET /v1/predict-set")
    assert all(statuses[label, "positive"] == {200} for label in ours)
    assert all(statuses[label, "negative"] & {400, 422} for label in ours)
    assert len(statuses) > len(ours)
    assert not [line for line in served.lines() if line["level"] == "error"]


def test_limits_and_token_are_told() -> None:
    described = describe({"info": {}, "paths": {}}, ServeSettings(max_candidates=7, open_metrics=True), True)
    assert described["components"]["schemas"]["FilterQuestion"]["properties"]["item_ids"]["maxItems"] == 7
    closed = {path for path, one in described["paths"].items() if "security" in next(iter(one.values()))}
    assert set(described["paths"]) - closed == {"/health", "/ready", "/metrics"}
