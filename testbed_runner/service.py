"""The process of a runner: wiring of its parts."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import structlog

from broker.api_client import CredentialRefused
from broker.clock import Backoff, Clock
from broker.errors import Taken, Unavailable
from broker.process import file_lock, files
from broker.process import tasks as process_tasks
from broker.server_addresses import ServerAddresses
from testbed_runner import api as runner_api
from testbed_runner import products
from testbed_runner.api import RunnerApi
from testbed_runner.journal import RunnerJournal
from testbed_runner.port import ProductName
from testbed_runner.products import ProductParts
from testbed_runner.reconciler import DeploymentReconciler, RunnerTrust
from testbed_runner.reporter import RunnerReporter
from testbed_runner.secrets_folder import SecretsFolder
from testbed_runner.settings import RunnerSettings
from testbed_runner.supervised import SiteParts
from testbed_runner.work_list import WorkList

LOCK, JOURNAL, ORGANISATION = "lock", "journal", "organisation"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerIdentity:
    """The name of a runner, and how it reaches its testbed."""

    name: str
    credential: str
    addresses: ServerAddresses


async def run(
    settings: RunnerSettings,
    identity: RunnerIdentity,
    clock: Clock,
    *,
    ends_programs: bool = False,
) -> None:
    """Run what the testbed wants to run here, until cancelled.

    ends_programs: end the programs with this process; else they go on, and the next one adopts
    them.  Raises Taken while another process uses the folder, Forbidden once the testbed has locked
    the runner out, by when all its containers are removed.
    """
    folder = settings.runner_folder
    _make(folder)
    taken = Taken(
        f"another runner uses the folder {folder.absolute()}",
        hint="stop it first, or choose another folder with --folder",
    )
    with file_lock.locked(folder / LOCK, taken):
        async with (
            runner_api.connect(identity.addresses, identity.credential) as api,
            asyncio.TaskGroup() as tasks,
        ):
            product = ProductParts(
                folder=folder,
                addresses=identity.addresses,
                docker=settings.runner_docker,
                clock=clock,
                tasks=tasks,
            )
            parts = await _parts(settings, identity, product, api)
            await _serve(settings, parts, ends_programs=ends_programs)


async def _parts(
    settings: RunnerSettings, identity: RunnerIdentity, product: ProductParts, api: RunnerApi
) -> SiteParts:
    """The parts that run a site, with the product opened."""
    return SiteParts(
        site=identity.name,
        engine=await products.opened(settings.runner_product, product),
        api=api,
        addresses=identity.addresses,
        secrets=SecretsFolder(product.folder, "runner"),
        clock=product.clock,
        tasks=product.tasks,
        woken=asyncio.Event(),
    )


async def _serve(settings: RunnerSettings, parts: SiteParts, *, ends_programs: bool) -> None:
    """Follow the list of work, reconcile and report, until cancelled or locked out."""
    folder = settings.runner_folder
    journal = RunnerJournal(folder / JOURNAL)
    reconciler = DeploymentReconciler(parts, journal)
    reporter = RunnerReporter(
        reconciler, parts.engine, parts.api, settings=settings, clock=parts.clock
    )
    work = WorkList(folder, parts.api, parts.clock)
    is_locked_out = False
    try:
        async with process_tasks.background(
            {"reconciler": reconciler.run(), "reports": reporter.run()}
        ):
            reconciler.trust = await _trust(settings, parts)
            log.info("runner runs", runner=parts.site, product=parts.engine.product)
            if (stored := work.stored()) is not None:
                reconciler.receive(stored)
            await work.follow(reconciler.receive)
    except CredentialRefused:
        is_locked_out = True
        raise
    finally:
        await reconciler.close(ends_programs=ends_programs or is_locked_out)
        await parts.engine.close()
        parts.secrets.close()


async def _trust(settings: RunnerSettings, parts: SiteParts) -> RunnerTrust:
    """The organisations whose programs are run; says loudly where nothing isolates them."""
    if parts.engine.product is not ProductName.PROCESS:
        return RunnerTrust()
    own = await _organisation(settings.runner_folder, parts.api, parts.clock)
    organisations = settings.trusted(own)
    log.warning(
        "programs run as plain processes, which nothing isolates: they can read what this user can"
        " read, and use all of this machine",
        organisations="all" if organisations is None else sorted(organisations),
        hint="for programs of others, install Docker",
    )
    return RunnerTrust(organisations)


async def _organisation(folder: Path, api: RunnerApi, clock: Clock) -> str:
    """The organisation of the runner: as the testbed said once, else as it says now."""
    file = folder / ORGANISATION
    if file.exists():
        return files.read_secret(file, f"the organisation in {file}")
    backoff = Backoff(clock, first_s=FIRST_PAUSE_S, longest_s=LONGEST_PAUSE_S)
    while True:
        try:
            organisation = await api.organisation()
        except Unavailable as exc:
            log.warning("runner waits for the testbed", reason=str(exc))
            await backoff.pause()
        else:
            files.replace(file, f"{organisation}\n".encode())
            return organisation


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=files.PRIVATE_FOLDER)
    except OSError as exc:
        raise files.unwritable(folder, "the runner's folder", exc, "--folder") from exc
