"""Settings of the secrets that API, recorder and broker share, if the broker is a service."""

from collections.abc import Mapping

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from broker.backends.nats.server import Keys
from broker.credential import Credential
from broker.errors import Invalid
from broker.settings import PREFIX, Settings

API = "testbed-api"
RECORDER = "testbed-recorder"
RECONCILER = "testbed-reconciler"
ADMINISTRATOR = "administrator"
_NONE = SecretStr("")


class SharedSecrets(Settings):
    """The passwords, the key and the credentials that API, recorder and broker share."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    broker_callout_password: SecretStr = Field(
        default=_NONE,
        description="password of the service that authorizes connections to the broker",
    )
    broker_system_password: SecretStr = Field(
        default=_NONE, description="password of the service that closes connections to the broker"
    )
    broker_signing_key: SecretStr = Field(
        default=_NONE, description="seed (SA…) of the key that signs answers to the broker"
    )
    api_credential: SecretStr = Field(
        default=_NONE, description="credential of the API, testbed-api.secret"
    )
    recorder_credential: SecretStr = Field(
        default=_NONE, description="credential of the recorder, testbed-recorder.secret"
    )
    administrator_credential: SecretStr = Field(
        default=_NONE, description="credential of the first administrator, administrator.secret"
    )

    def keys(self) -> Keys:
        """The keys shared with the NATS server; raises Invalid if one is missing."""
        return Keys(
            callout=self._required("broker_callout_password"),
            system=self._required("broker_system_password"),
            signing=self._required("broker_signing_key"),
        )

    def system(self) -> Mapping[str, Credential]:
        """Credentials of API and recorder by principal; raises Invalid if one is missing."""
        return {
            API: self._credential("api_credential", API),
            RECORDER: self._credential("recorder_credential", RECORDER),
        }

    def administrator(self) -> Credential:
        """The credential of the first administrator; raises Invalid if it is missing."""
        return self._credential("administrator_credential", ADMINISTRATOR)

    def _credential(self, name: str, principal: str) -> Credential:
        credential = Credential.parse(self._required(name))
        if credential.principal != principal:
            raise Invalid(f"{PREFIX}{name.upper()} is not the credential of {principal!r}")
        return credential

    def _required(self, name: str) -> str:
        secret: SecretStr = getattr(self, name)
        if not secret.get_secret_value():
            variable = f"{PREFIX}{name.upper()}"
            raise Invalid(
                f"{variable} is not set",
                hint=f"set {variable}_FILE to a file of `testbed secrets init`",
            )
        return secret.get_secret_value()
