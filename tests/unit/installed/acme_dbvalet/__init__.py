"""An engine of another package: what tests put on the path as if it had been installed."""

from engines.engine import Engine, GrantsFor, Requirement


async def _is_met(_: object) -> bool:
    return True


def _grants(wanted: GrantsFor) -> str:
    return f"ACME ACCOUNT {wanted.user}"


ENGINE = Engine(
    name="acme",
    title="Acme",
    schemes=("acme",),
    default_port=7,
    package="acme_dbvalet",
    server="acme_dbvalet.driver:AcmeServer",
    requirements={"acme-right": Requirement(name="acme-right", met=_is_met, remedy=lambda _: "GRANT acme-right")},
    grants=_grants,
)
