"""Acts on secrets of an organisation's prototypes: their values go in, and come out for nobody."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from broker.clock import Clock
from broker.rights import Action
from testbed_api.actions.caller import Caller
from testbed_api.domain.audit import AuditContext
from testbed_api.domain.secrets import SealedSecret, SecretCipher
from testbed_api.limits.quotas import Quotas
from testbed_api.registry.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretActions:
    """Encrypts and stores secrets, and writes the audit entry of each act, without the value."""

    registry: Registry
    cipher: SecretCipher
    quotas: Quotas
    clock: Clock

    async def put(
        self, context: AuditContext, caller: Caller, organisation: str, named: tuple[str, str]
    ) -> SealedSecret:
        """Set a secret, in place of one of the same name.

        named: its name and its value.  Raises Invalid for a value that none has, TooMany for a full
        quota.
        """
        caller.must(Action.DEPLOY, organisation)
        name, value = named
        secret = SealedSecret(
            organisation=organisation,
            name=name,
            sealed=self.cipher.sealed(organisation, name, value),
            set_ns=self.clock.now_ns(),
            set_by=caller.id,
        )
        async with self.registry.change(context, self.clock) as change:
            others = await change.secrets.count(organisation, but=name)
            self.quotas.keeping_secrets(organisation, others)
            await change.secrets.put(secret)
        return secret

    async def secrets(self, caller: Caller, organisation: str) -> Sequence[SealedSecret]:
        """The secrets of an organisation, by name."""
        caller.must(Action.DEPLOY, organisation)
        return await self.registry.secrets.of_organisation(organisation)

    async def delete(
        self, context: AuditContext, caller: Caller, organisation: str, name: str
    ) -> None:
        """Delete a secret; deployments that run keep what they got.  Raises Unknown."""
        caller.must(Action.DEPLOY, organisation)
        async with self.registry.change(context, self.clock) as change:
            await change.secrets.remove(organisation, name)


async def values(
    registry: Registry, cipher: SecretCipher, organisation: str, names: Collection[str]
) -> Mapping[str, str]:
    """The values of secrets by name, for the runner of a deployment that needs them.

    Raises Unknown if one is not set, Unavailable if the key of the server is another one.
    """
    stored = await registry.secrets.named(organisation, names)
    return {each.name: cipher.opened(each) for each in stored}
