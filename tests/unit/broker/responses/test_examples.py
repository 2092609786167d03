"""Every answer of the API has an example that is one of its kind."""

import importlib
import pkgutil

import orjson
import pytest

from broker import messages, responses
from broker.namespace import StreamAddress
from broker.responses.base import ApiResponse, PageResponse
from broker.responses.equipment import SpecResponse
from broker.streams import Dtype, Signal, StreamSpec, Trigger


def models() -> list[type[ApiResponse]]:
    """Every response model of the shared floor."""
    modules = [
        importlib.import_module(f"{responses.__name__}.{module.name}")
        for module in pkgutil.iter_modules(responses.__path__)
    ]
    return [
        model
        for module in modules
        for model in vars(module).values()
        if isinstance(model, type)
        and issubclass(model, ApiResponse)
        and model.__module__ == module.__name__
        and model not in {ApiResponse, PageResponse}
    ]


@pytest.mark.parametrize("model", models(), ids=lambda model: model.__name__)
def test_an_example_is_an_answer(model):
    example = model.example()
    assert model.model_validate(example).model_dump(mode="json", by_alias=True) == example


def test_a_spec_is_answered_as_it_goes_over_the_bus():
    spec = StreamSpec(
        address=StreamAddress.parse("factory/rig/all"),
        signals=(
            Signal("Pressure", unit="bar", low=0.0, high=6.0, resolution=0.01, node="ns=2;i=1"),
            Signal("Open", dtype=Dtype.BOOL, description="the valve"),
        ),
        version=3,
        trigger=Trigger.TIMESTAMP,
        period_s=0.1,
        max_silence_s=5.0,
        description="all of it",
    )
    answer = SpecResponse.from_spec(spec).model_dump_json(by_alias=True)
    assert messages.spec_from_json(orjson.loads(answer)) == spec
    assert orjson.loads(answer) == orjson.loads(messages.encode_spec(spec))
