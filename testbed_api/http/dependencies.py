"""The capabilities that routes take, each as an annotated dependency on the app's container."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request

from broker.bus import client
from broker.clock import Clock, ForwardClock
from broker.responses.operations import BrokerListenerResponse
from broker.rights import Entry
from testbed_api.actions.deployment_gates import DeploymentGates
from testbed_api.actions.deployment_reasons import DeploymentReasons
from testbed_api.actions.deployments import DeploymentActions
from testbed_api.actions.enrolment import EnrolmentActions
from testbed_api.actions.equipment import EquipmentActions
from testbed_api.actions.grants import GrantActions
from testbed_api.actions.images import ImageActions
from testbed_api.actions.listings import ListingActions
from testbed_api.actions.machines import MachineActions
from testbed_api.actions.organisations import OrganisationActions
from testbed_api.actions.passwords import PasswordActions
from testbed_api.actions.pauses import PauseActions
from testbed_api.actions.recordings import RecordingActions
from testbed_api.actions.retention import RetentionActions
from testbed_api.actions.runner_work import RunnerWorkActions
from testbed_api.actions.runners import RunnerActions
from testbed_api.actions.runs import RunActions
from testbed_api.actions.secrets import SecretActions
from testbed_api.actions.streams import StreamActions
from testbed_api.actions.tokens import TokenActions, TokenChanges
from testbed_api.audit.clock_watch import ClockWatch
from testbed_api.audit.journal import Anchoring, Journal
from testbed_api.audit.read_counter import ReadCounter
from testbed_api.backup.dump import Dumper
from testbed_api.broker_auth.connections import BrokerConnections
from testbed_api.broker_auth.rights_changes import RightsChanges
from testbed_api.deployments.news import DeploymentNews
from testbed_api.deployments.status import DeploymentStatuses
from testbed_api.domain.secrets import SecretCipher
from testbed_api.http.live_feeds import LiveFeeds
from testbed_api.http.rights_watch import RightsWatch
from testbed_api.images.pruning import ImagePruning
from testbed_api.limits.quotas import Quotas
from testbed_api.limits.sign_in_attempts import SignInAttempts
from testbed_api.notifications.delivery import NoticeDelivery
from testbed_api.notifications.notifier import Notifier
from testbed_api.recorder.freshness import FreshnessTracker
from testbed_api.recorder.ledger import Ledger
from testbed_api.recordings.maker import RecordingMaker
from testbed_api.registry.access_log import ReadKey
from testbed_api.registry.registry import Registry
from testbed_api.registry.token_use import TokenUses
from testbed_api.retention.enforcer import RetentionEnforcer
from testbed_api.security.certificate_watch import CertificateWatch
from testbed_api.stores.port import SeriesStore


def _nothing_recorded() -> Mapping[str, int]:
    return {}


def _not_interrupted() -> str:
    return ""


def _no_connects() -> int:
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecorderStatus:
    """The state of the recorder, where it runs in this process.

    counts: its counters, empty where it runs in a process of its own.  interrupted: why it does not
    record just now, empty while it does.
    """

    counts: Callable[[], Mapping[str, int]] = _nothing_recorded
    interrupted: Callable[[], str] = _not_interrupted


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadLog:
    """Counts reads before they are answered."""

    registry: Registry
    clock: Clock
    counter: ReadCounter = field(default_factory=ReadCounter)

    async def note(self, principal: str, entry: Entry, way: str) -> None:
        """Count a read; raises Unavailable: a read that cannot be counted is not answered."""
        now_ns = self.clock.now_ns()
        key = ReadKey.at(principal, entry, way, now_ns)
        await self.counter.note(self.registry, key, now_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrototypeMaterial:
    """Images of prototypes on a server, and the cipher of their secrets.

    registries: hosts whose images may be deployed.
    """

    images: ImagePruning
    cipher: SecretCipher
    registries: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiDependencies:
    """The container of all that the routes take.

    registry: makes changes with an audit entry alone.  clock: the server's.  delivery: of notices,
    None for no channel.  broker_listener: of the broker, as clients are told.  late_connects:
    counts connect requests that were too late to be answered.
    """

    registry: Registry
    ledger: Ledger
    store: SeriesStore
    keeper: RetentionEnforcer
    recording_maker: RecordingMaker
    prototype_material: PrototypeMaterial
    dumper: Dumper
    bus: client.Bus
    freshness: FreshnessTracker
    clock: ForwardClock
    clock_watch: ClockWatch
    connections: BrokerConnections
    journal: Journal
    anchoring: Anchoring
    reads: ReadLog
    broker_listener: BrokerListenerResponse
    quotas: Quotas
    sign_in_attempts: SignInAttempts
    rights_watch: RightsWatch
    live_feeds: LiveFeeds
    token_uses: TokenUses
    recorder: RecorderStatus = field(default_factory=RecorderStatus)
    delivery: NoticeDelivery | None = None
    deployment_news: DeploymentNews = field(default_factory=DeploymentNews)
    certificates: CertificateWatch = field(default_factory=CertificateWatch)
    late_connects: Callable[[], int] = _no_connects

    @property
    def rights_changes(self) -> RightsChanges:
        """Changes of rights, with what follows on the bus."""
        return RightsChanges(self.registry, self.clock, self.connections.disconnect)

    @property
    def organisations(self) -> OrganisationActions:
        """The acts on organisations and members."""
        return OrganisationActions(
            registry=self.registry,
            rights_changes=self.rights_changes,
            connections=self.connections,
            clock=self.clock,
        )

    @property
    def machines(self) -> MachineActions:
        """The acts on machines and their tokens."""
        return MachineActions(
            registry=self.registry,
            connections=self.connections,
            tokens=self._token_changes,
            clock=self.clock,
        )

    @property
    def enrolments(self) -> EnrolmentActions:
        """The acts of enrolment."""
        return EnrolmentActions(
            registry=self.registry,
            connections=self.connections,
            attempts=self.sign_in_attempts,
            clock=self.clock,
        )

    @property
    def passwords(self) -> PasswordActions:
        """The acts on passwords, and signing in."""
        return PasswordActions(
            registry=self.registry, attempts=self.sign_in_attempts, clock=self.clock
        )

    @property
    def equipment(self) -> EquipmentActions:
        """The acts on equipment."""
        return EquipmentActions(registry=self.registry, clock=self.clock)

    @property
    def notifier(self) -> Notifier:
        """Queues notices for the channels that are set up."""
        senders = {} if self.delivery is None else self.delivery.senders
        return Notifier(channels=frozenset(senders))

    @property
    def grants(self) -> GrantActions:
        """The acts on grants."""
        return GrantActions(
            registry=self.registry,
            rights_changes=self.rights_changes,
            clock=self.clock,
            notifier=self.notifier,
        )

    @property
    def pauses(self) -> PauseActions:
        """The acts on pauses."""
        return PauseActions(
            registry=self.registry,
            rights_changes=self.rights_changes,
            clock=self.clock,
            notifier=self.notifier,
        )

    @property
    def listings(self) -> ListingActions:
        """The acts on listings."""
        return ListingActions(registry=self.registry, clock=self.clock)

    @property
    def streams(self) -> StreamActions:
        """The acts on streams."""
        return StreamActions(
            registry=self.registry,
            rights_changes=self.rights_changes,
            quotas=self.quotas,
            clock=self.clock,
        )

    @property
    def runs(self) -> RunActions:
        """The acts on runs."""
        return RunActions(registry=self.registry, quotas=self.quotas, clock=self.clock)

    @property
    def deployment_statuses(self) -> DeploymentStatuses:
        """The state of deployments as they are now."""
        return DeploymentStatuses(
            registry=self.registry, rights=self.rights_watch.rights, clock=self.clock
        )

    @property
    def deployments(self) -> DeploymentActions:
        """The acts on deployments."""
        return DeploymentActions(
            registry=self.registry,
            connections=self.connections,
            statuses=self.deployment_statuses,
            gates=DeploymentGates(registry=self.registry, quotas=self.quotas, clock=self.clock),
            quotas=self.quotas,
            news=self.deployment_news,
            clock=self.clock,
        )

    @property
    def deployment_reasons(self) -> DeploymentReasons:
        """Finds out why deployments are in their states."""
        return DeploymentReasons(registry=self.registry, deployments=self.deployments)

    @property
    def runners(self) -> RunnerActions:
        """The acts on runners."""
        return RunnerActions(
            registry=self.registry,
            connections=self.connections,
            attempts=self.sign_in_attempts,
            news=self.deployment_news,
            clock=self.clock,
        )

    @property
    def runner_work(self) -> RunnerWorkActions:
        """The acts of runners."""
        return RunnerWorkActions(
            registry=self.registry,
            connections=self.connections,
            rights=self.rights_watch.rights,
            cipher=self.prototype_material.cipher,
            images=self.prototype_material.images.shelf,
            news=self.deployment_news,
            clock=self.clock,
        )

    @property
    def retentions(self) -> RetentionActions:
        """The acts on retentions and deletions."""
        return RetentionActions(registry=self.registry, enforcer=self.keeper, clock=self.clock)

    @property
    def recordings(self) -> RecordingActions:
        """The acts on recordings."""
        return RecordingActions(
            registry=self.registry,
            maker=self.recording_maker,
            quotas=self.quotas,
            clock=self.clock,
            note=self.reads.note,
        )

    @property
    def images(self) -> ImageActions:
        """The acts on images."""
        return ImageActions(
            registry=self.registry,
            shelf=self.prototype_material.images.shelf,
            registries=self.prototype_material.registries,
            quotas=self.quotas,
            clock=self.clock,
        )

    @property
    def secrets(self) -> SecretActions:
        """The acts on secrets."""
        return SecretActions(
            registry=self.registry,
            cipher=self.prototype_material.cipher,
            quotas=self.quotas,
            clock=self.clock,
        )

    @property
    def tokens(self) -> TokenActions:
        """The acts on the caller's own tokens."""
        return TokenActions(registry=self.registry, changes=self._token_changes)

    @property
    def _token_changes(self) -> TokenChanges:
        return TokenChanges(registry=self.registry, connections=self.connections, clock=self.clock)


def _capability(name: str) -> Any:
    """The dependency on one field of the container."""

    async def get(request: Request) -> Any:
        return getattr(request.app.state.dependencies, name)

    return Depends(get)


BrokerListenerDep = Annotated[BrokerListenerResponse, _capability("broker_listener")]
RegistryDep = Annotated[Registry, _capability("registry")]
LedgerDep = Annotated[Ledger, _capability("ledger")]
StoreDep = Annotated[SeriesStore, _capability("store")]
KeeperDep = Annotated[RetentionEnforcer, _capability("keeper")]
DumperDep = Annotated[Dumper, _capability("dumper")]
BusDep = Annotated[client.Bus, _capability("bus")]
FreshnessDep = Annotated[FreshnessTracker, _capability("freshness")]
ClockDep = Annotated[ForwardClock, _capability("clock")]
ClockWatchDep = Annotated[ClockWatch, _capability("clock_watch")]
CertificatesDep = Annotated[CertificateWatch, _capability("certificates")]
AnchoringDep = Annotated[Anchoring, _capability("anchoring")]
ReadsDep = Annotated[ReadLog, _capability("reads")]
RecorderDep = Annotated[RecorderStatus, _capability("recorder")]
QuotasDep = Annotated[Quotas, _capability("quotas")]
RightsWatchDep = Annotated[RightsWatch, _capability("rights_watch")]
LiveFeedsDep = Annotated[LiveFeeds, _capability("live_feeds")]
TokenUsesDep = Annotated[TokenUses, _capability("token_uses")]
LateConnectsDep = Annotated[Callable[[], int], _capability("late_connects")]
OrganisationActionsDep = Annotated[OrganisationActions, _capability("organisations")]
MachineActionsDep = Annotated[MachineActions, _capability("machines")]
EnrolmentActionsDep = Annotated[EnrolmentActions, _capability("enrolments")]
PasswordActionsDep = Annotated[PasswordActions, _capability("passwords")]
EquipmentActionsDep = Annotated[EquipmentActions, _capability("equipment")]
GrantActionsDep = Annotated[GrantActions, _capability("grants")]
PauseActionsDep = Annotated[PauseActions, _capability("pauses")]
ListingActionsDep = Annotated[ListingActions, _capability("listings")]
StreamActionsDep = Annotated[StreamActions, _capability("streams")]
RetentionActionsDep = Annotated[RetentionActions, _capability("retentions")]
RecordingActionsDep = Annotated[RecordingActions, _capability("recordings")]
ImageActionsDep = Annotated[ImageActions, _capability("images")]
SecretActionsDep = Annotated[SecretActions, _capability("secrets")]
RunActionsDep = Annotated[RunActions, _capability("runs")]
DeploymentActionsDep = Annotated[DeploymentActions, _capability("deployments")]
DeploymentReasonsDep = Annotated[DeploymentReasons, _capability("deployment_reasons")]
DeploymentNewsDep = Annotated[DeploymentNews, _capability("deployment_news")]
RunnerActionsDep = Annotated[RunnerActions, _capability("runners")]
RunnerWorkActionsDep = Annotated[RunnerWorkActions, _capability("runner_work")]
TokenActionsDep = Annotated[TokenActions, _capability("tokens")]
