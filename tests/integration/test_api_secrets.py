"""Secrets go in, and their values come out of no answer, log, audit entry or table."""

import io
import logging
from dataclasses import replace

import pytest

from broker.errors import Unavailable, Unknown
from broker.rights import Role
from testbed_api.actions import secrets as secret_actions
from testbed_api.domain.secrets import MOST_VALUE, SecretCipher
from testbed_api.limits.quotas import QuotaSettings
from testbed_api.registry.audit import EventFilter
from tests.integration.api_bed import assert_problem

SECRETS = "/organisations/company/secrets"
VALUE = "correct-horse-battery-staple"


@pytest.fixture
async def cora(bed):
    """A developer of a company."""
    return await bed.person("cora", "company", Role.DEVELOPER)


async def put(bed, who, value=VALUE, name="CLOUD_KEY"):
    return await bed.ask(who, "PUT", f"{SECRETS}/{name}", json={"value": value})


async def test_a_secret_is_set_listed_by_name_and_read_by_a_runner_alone(bed, cora):
    answer = await put(bed, cora)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["name"], answer.json()["by"]) == ("CLOUD_KEY", "cora")
    await put(bed, cora, "other", "A_TOKEN")
    listed = (await bed.ask(cora, "GET", SECRETS)).json()
    assert [each["name"] for each in listed["items"]] == ["A_TOKEN", "CLOUD_KEY"]
    assert set(listed["items"][0]) == {"name", "set", "by"}
    cipher = bed.api.prototype_material.cipher
    names = ("CLOUD_KEY", "A_TOKEN")
    values = await secret_actions.values(bed.registry, cipher, "company", names)
    assert values == {"CLOUD_KEY": VALUE, "A_TOKEN": "other"}
    await put(bed, cora, "newer")
    values = await secret_actions.values(bed.registry, cipher, "company", ["CLOUD_KEY"])
    assert values == {"CLOUD_KEY": "newer"}
    with pytest.raises(Unknown, match="company has no secret MISSING"):
        await secret_actions.values(bed.registry, cipher, "company", ["MISSING"])
    with pytest.raises(Unknown, match="factory has no secret"):
        await secret_actions.values(bed.registry, cipher, "factory", ["CLOUD_KEY"])


async def test_a_value_is_nowhere_but_encrypted(bed, cora, tmp_path, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    answers = [
        await put(bed, cora),
        await put(bed, cora, VALUE * 5_000),
        await put(bed, cora, VALUE, "TESTBED_KEY"),
        await put(bed, cora, f"{VALUE}\0"),
        await bed.ask(cora, "PUT", f"{SECRETS}/X", json={"value": [VALUE]}),
        await bed.ask(cora, "PUT", f"{SECRETS}/X", json={"value": VALUE, "velue": VALUE}),
        await bed.ask(cora, "GET", SECRETS),
    ]
    assert [each.status_code for each in answers] == [200, 422, 422, 422, 422, 422, 200]
    assert not [each.text for each in answers if VALUE in each.text]
    events = await bed.registry.audit.events(EventFilter(), 0, 100)
    assert any("CLOUD_KEY" in link.event.details for link in events)
    assert VALUE not in str(events)
    printed = capsys.readouterr()
    assert VALUE not in caplog.text + printed.out + printed.err
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or VALUE.encode() not in path.read_bytes(), path
    dump = io.BytesIO()
    async for chunk in bed.api.dumper.tables():
        dump.write(chunk)
    assert b'"secrets"' in dump.getvalue()
    assert VALUE.encode() not in dump.getvalue()


async def test_a_sealed_value_opens_at_its_own_place_with_its_own_key_alone(bed, cora):
    await put(bed, cora)
    cipher = bed.api.prototype_material.cipher
    (stored,) = await bed.registry.secrets.of_organisation("company")
    assert cipher.opened(stored) == VALUE
    assert VALUE not in repr(stored)
    for moved in (
        replace(stored, organisation="factory"),
        replace(stored, name="OTHER"),
        replace(stored, sealed=stored.sealed[:-1] + bytes([stored.sealed[-1] ^ 1])),
        replace(stored, sealed=b""),
    ):
        with pytest.raises(Unavailable, match="cannot be read"):
            cipher.opened(moved)
    with pytest.raises(Unavailable, match="another key"):
        SecretCipher("6" * 64).opened(stored)
    assert cipher.sealed("company", "A", "x") != cipher.sealed("company", "A", "x")


async def test_others_neither_see_nor_set_nor_delete_it(bed, cora, owner):
    await put(bed, cora)
    olaf = await bed.person("olaf", "company", Role.OPERATOR)
    for who, status in ((olaf, 403), (owner, 404)):
        assert (await put(bed, who)).status_code == status
        assert (await bed.ask(who, "GET", SECRETS)).status_code == status
        answer = await bed.ask(who, "DELETE", f"{SECRETS}/CLOUD_KEY")
        assert answer.status_code == status
    assert (await bed.ask(cora, "DELETE", f"{SECRETS}/CLOUD_KEY")).status_code == 204
    answer = await bed.ask(cora, "DELETE", f"{SECRETS}/CLOUD_KEY")
    assert_problem(answer, 404, "unknown", "company has no secret")
    assert (await bed.ask(cora, "GET", SECRETS)).json() == {"items": []}


async def test_an_organisation_has_so_many_secrets_and_sets_old_ones_anew(bed, cora):
    bed.api.quotas.most = QuotaSettings(secrets=2)
    for name in ("A", "B", "A", "B"):
        assert (await put(bed, cora, "x", name)).status_code == 200
    assert_problem(await put(bed, cora, "x", "C"), 429, "too_many", "2 secrets of company")
    assert (await put(bed, cora, "x" * MOST_VALUE, "A")).status_code == 200
