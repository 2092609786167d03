"""`testbed gateway`: the edge process beside a machine, and its commissioning."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.clock import WallClock
from broker.errors import BedError, Refused
from broker.namespace import EquipmentKind
from testbed.terminal import run as terminal_run
from testbed.terminal.options import Api, Broker, Ca, Equipment, Json, PrintUnit, example
from testbed.terminal.run import Exit
from testbed.terminal.screen import Screen, announce, notes, out, print_json

if TYPE_CHECKING:
    from testbed.commissioning.trust import ServerCertificate

EXAMPLE = example(
    "testbed gateway browse opc.tcp://127.0.0.1:4840 --security none --write mapping.yaml"
)

gateway_app = typer.Typer(
    help="Connect a machine: browse it, check a mapping, run the gateway beside it.",
    no_args_is_help=True,
    epilog=EXAMPLE,
)

Mapping = Annotated[Path, typer.Argument(help="mapping file (YAML), see docs/reference/mapping.md")]
Mappings = Annotated[
    list[Path],
    typer.Argument(
        metavar="MAPPING...",
        help="mapping files (YAML), one for each machine, each with its own gateway",
    ),
]
Beside = Annotated[
    Path | None,
    typer.Option(
        help="mapping file of the gateway, beside which its state lies (default: the current"
        " folder)"
    ),
]
Policy = Annotated[
    str,
    typer.Option(help="security policy of an OPC UA server: Basic256Sha256, Aes256Sha256RsaPss"),
]
Kind = Annotated[
    EquipmentKind, typer.Option(help="kind in the mapping, final once its gateway has run")
]
SourceUrl = Annotated[
    str,
    typer.Argument(
        help="opc.tcp://host:port of a server, or mqtt://host:port (mqtts, ws, wss;"
        " mqtt://user@host:port) of a broker of sensors"
    ),
]
BrokerCa = Annotated[
    Path | None,
    typer.Option(
        help="PEM file of the authority of the broker's certificate, with mqtts or wss (default:"
        " those that the system trusts)"
    ),
]
ClientCertificate = Annotated[
    Path | None, typer.Option(help="PEM file of the certificate to show the broker (default: none)")
]
ClientKey = Annotated[
    Path | None, typer.Option(help="PEM file of that certificate's key (default: none)")
]
MqttVersion = Annotated[str, typer.Option(help="version of MQTT: 3.1.1 or 5")]
ListenS = Annotated[
    float,
    typer.Option(
        min=1,
        max=3_600,
        help="seconds to listen to a broker, or with --write to measure an OPC UA server's"
        " variables",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands of this module to the app."""
    app.add_typer(gateway_app, name="gateway")


@gateway_app.command(
    "run",
    epilog=example(
        "testbed gateway run mapping.yaml",
        "testbed gateway run mapping.yaml press.yaml",
        "testbed gateway run mapping.yaml --enrol",
        "testbed gateway run mapping.yaml --take-over",
    ),
)
def run(
    mappings: Mappings,
    enrol: Annotated[
        bool,
        typer.Option(
            "--enrol",
            help="enrol each gateway that is not enrolled yet, as the engineer who is signed in",
        ),
    ] = False,
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over",
            help="disconnect a process elsewhere that runs as the same gateway (default: end with"
            " an error that names it)",
        ),
    ] = False,
) -> None:
    """Read the machine of each mapping and publish its samples, until Ctrl-C.

    Ends with exit code 2 where only a person can help; what passes by itself is waited for.
    """
    from testbed.commissioning import gateway_process

    if enrol:
        for enrolled in terminal_run.run(gateway_process.enrol_new(mappings), keeps_data=True):
            gateway_process.print_enrolled(enrolled, notes)
    running = gateway_process.run(mappings, WallClock(), takes_over=take_over)
    terminal_run.run(running, keeps_data=True, serves=True)


@gateway_app.command(
    "install-service",
    epilog=example("testbed gateway install-service mapping.yaml --run-as gateway"),
)
def install_service(
    mappings: Mappings,
    print_only: PrintUnit = False,
    name: Annotated[str, typer.Option(help="name of the service")] = "testbed-gateway",
    run_as: Annotated[
        str | None,
        typer.Option(
            help="user of this machine that runs the gateways (default: the owner of the first"
            " mapping)"
        ),
    ] = None,
) -> None:
    """Write a systemd unit that runs the gateways of mappings, and print the next commands."""
    from testbed import systemd
    from testbed.commissioning import systemd_unit

    try:
        service = systemd_unit.service(mappings, name=name, user=run_as)
        systemd.print_or_install(service, out, print_only=print_only)
    except BedError as exc:
        terminal_run.fail(exc)


@gateway_app.command("code", epilog=example("testbed gateway code factory/pump-rig"))
def code(equipment: Equipment, json: Json = False) -> None:
    """Create a one-time code, valid for an hour, to enrol the gateway of an equipment."""
    from testbed.client import enrolment

    created = terminal_run.run(enrolment.create_code(equipment))
    print_json(created) if json else enrolment.print_code(created, equipment, out, notes)


@gateway_app.command("enrol", epilog=example("testbed gateway enrol AAAAA-BBBBB-CCCCC-DDDDD"))
def enrol(
    code: Annotated[str, typer.Argument(help="one-time code, as `testbed gateway code` showed it")],
    api: Api = None,
    broker: Broker = None,
    ca: Ca = None,
    mapping: Beside = None,
    json: Json = False,
) -> None:
    """On the gateway's machine: create its key, and get its credential for a one-time code."""
    from testbed.client import enrolment
    from testbed.client.addresses import AddressOptions
    from testbed.commissioning import gateway_process

    options = AddressOptions(api=api, broker=broker, ca=ca)
    state = terminal_run.call(lambda: gateway_process.state_folders(mapping))
    chosen = terminal_run.call(lambda: enrolment.addresses_of(options))
    enrolled = terminal_run.run(enrolment.enrol(code, chosen, state))
    print_json(enrolled.as_json()) if json else enrolment.print_enrolled(enrolled, out, notes)


@gateway_app.command("show", epilog=example("testbed gateway show factory/pump-rig"))
def show(equipment: Equipment, json: Json = False) -> None:
    """Show the gateway of an equipment, with the fingerprint of its key."""
    from testbed.client import enrolment

    gateways = terminal_run.run(enrolment.fetch_gateways(equipment))
    print_json(gateways) if json else enrolment.print_gateways(gateways, equipment, out)


@gateway_app.command("lock-out", epilog=example("testbed gateway lock-out factory/pump-rig"))
def lock_out(equipment: Equipment) -> None:
    """End the credential, the connection and the open codes of an equipment's gateway at once."""
    from testbed.client import enrolment

    terminal_run.run(enrolment.lock_out(equipment))
    out.print(f"the gateway of {equipment} is locked out")


@gateway_app.command(
    "check",
    epilog=example(
        "testbed gateway check mapping.yaml", "testbed gateway check mapping.yaml --listen-s 60"
    ),
)
def check(
    mapping: Mapping,
    listen_s: Annotated[
        float | None,
        typer.Option(
            min=1,
            max=3_600,
            help="seconds to read an OPC UA server for (default: six periods, 3 to 10)",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Read a mapping's signals for some seconds, print each, and what is wrong with the mapping.

    The testbed is asked if somebody is signed in, or the gateway is enrolled.
    """
    announce(f"checking {mapping}")
    from testbed.commissioning import check_browse

    printer = print_json if json else out.print
    passed = terminal_run.run(check_browse.check(mapping, printer, as_json=json, listen_s=listen_s))
    raise typer.Exit(Exit.DONE if passed else Exit.INPUT)


@gateway_app.command("trust", epilog=example("testbed gateway trust opc.tcp://machine:4840"))
def trust(
    server: Annotated[str, typer.Argument(help="opc.tcp://host:port, or a mapping file")],
    sha256: Annotated[
        str | None,
        typer.Option(
            help="for scripts: SHA-256 of the certificate that is accepted without asking (default:"
            " ask)"
        ),
    ] = None,
    policy: Policy = "Basic256Sha256",
    mapping: Beside = None,
    json: Json = False,
) -> None:
    """Show an OPC UA server's certificate, and trust it if you confirm its SHA-256."""
    announce(f"asking {server}")
    from testbed.commissioning import trust as commissioning
    from testbed.commissioning.check_browse import Endpoint

    endpoint = Endpoint(url=server, security="sign-and-encrypt", policy=policy, mapping=mapping)
    certificate = terminal_run.run(commissioning.fetch_certificate(server, endpoint))
    commissioning.print_certificate(certificate, Screen(stderr=True) if json else out)
    file = _pinned(certificate, sha256, as_json=json)
    report = certificate.as_json(file)
    print_json(report) if json else commissioning.print_pinned(certificate, file, out)


def _pinned(certificate: "ServerCertificate", sha256: str | None, *, as_json: bool) -> Path:
    """The file in which a certificate is pinned, once it is accepted; else the command ends."""
    from testbed.commissioning import trust as commissioning

    confirm = functools.partial(typer.confirm, err=as_json)
    try:
        return commissioning.pin(
            certificate, commissioning.accepted_sha256(certificate, sha256, confirm)
        )
    except BedError as exc:
        terminal_run.fail(exc)
    except typer.Abort:
        unanswered = Refused("nothing was pinned: nobody answered", hint="in scripts: --sha256 HEX")
        terminal_run.fail(unanswered)


@gateway_app.command("browse", epilog=EXAMPLE)
def browse(
    url: SourceUrl,
    write: Annotated[
        Path | None, typer.Option(help="new file for a first mapping (default: write none)")
    ] = None,
    equipment: Annotated[
        str, typer.Option(help="organisation/equipment that the mapping is for")
    ] = "factory/machine",
    kind: Kind = EquipmentKind.REAL,
    security: Annotated[
        str | None,
        typer.Option(help="security of an OPC UA server: sign-and-encrypt or none (no default)"),
    ] = None,
    policy: Policy = "Basic256Sha256",
    user: Annotated[
        str,
        typer.Option(
            help="name to sign in with at the server or broker, the password in"
            " TESTBED_SOURCE_PASSWORD (default: anonymous)"
        ),
    ] = "",
    broker_ca: BrokerCa = None,
    client_certificate: ClientCertificate = None,
    client_key: ClientKey = None,
    mqtt_version: MqttVersion = "3.1.1",
    listen_s: ListenS = 5.0,
    mapping: Beside = None,
    json: Json = False,
) -> None:
    """List a server's nodes or a broker's topics, and write a first mapping of them."""
    announce(f"browsing {url}")
    from testbed.commissioning import check_browse

    broker = check_browse.BrokerOptions(
        ca=broker_ca, certificate=client_certificate, key=client_key, version=mqtt_version
    )
    endpoint = check_browse.Endpoint(url, security, policy, user, mapping, listen_s, kind, broker)
    terminal_run.run(check_browse.browse(endpoint, write, equipment, out, notes, as_json=json))
