"""deploy/kubernetes against Kubernetes' own schemas, and what they cannot say: that the parts fit each other."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
VERSION = "1.31"


def resources() -> list[dict[str, Any]]:
    return [each for file in sorted((DEPLOY / "kubernetes").glob("*.yaml")) for each in yaml.safe_load_all(file.open())]


def pod() -> dict[str, Any]:
    (found,) = [each for each in resources() if each["kind"] == "StatefulSet"]
    return found["spec"]["template"]["spec"]


@pytest.mark.parametrize("resource", resources(), ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_each_resource_is_one_that_kubernetes_takes(resource: dict[str, Any]) -> None:
    kubernetes_validate.validate(resource, VERSION, strict=True)


def test_a_mistake_is_found() -> None:
    broken = resources()[-1]
    broken["spec"]["template"]["spec"]["containers"][0]["comand"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSION, strict=True)


def test_both_containers_share_what_a_recovery_needs() -> None:
    spec = pod()
    assert spec["shareProcessNamespace"] is True
    mounted = [{each["mountPath"]: each["name"] for each in one["volumeMounts"]} for one in spec["containers"]]
    settings = yaml.safe_load((DEPLOY / "pitr" / "dbvalet.yaml").read_text())
    hold = settings["databases"][0]["pitr"]["control"]["hold_file"]
    variables = {each["name"]: each.get("value") for each in spec["containers"][0]["env"]}
    assert (variables["HOLD"], variables["PGDATA"]) == (hold["path"], hold["data"])
    assert f"pg1-path={hold['data']}\n" in (DEPLOY / "pitr" / "pgbackrest.conf").read_text()
    for folder in (Path(hold["path"]).parent, Path(hold["data"]).parent, Path("/repo"), Path("/pgbackrest")):
        assert mounted[0][str(folder)] == mounted[1][str(folder)]


def test_every_volume_that_is_mounted_is_there() -> None:
    (whole,) = [each for each in resources() if each["kind"] == "StatefulSet"]
    claimed = {each["metadata"]["name"] for each in whole["spec"]["volumeClaimTemplates"]}
    spec = pod()
    there = claimed | {each["name"] for each in spec["volumes"]}
    wanted = {mount["name"] for one in spec["containers"] + spec["initContainers"] for mount in one["volumeMounts"]}
    assert wanted == there


def test_nothing_is_mounted_below_what_is_read_only() -> None:
    spec = pod()
    assert spec["automountServiceAccountToken"] is False, "else it goes to /run/secrets/kubernetes.io/serviceaccount"
    for one in spec["containers"] + spec["initContainers"]:
        mounts = {Path(each["mountPath"]): each.get("readOnly", False) for each in one["volumeMounts"]}
        assert [each for each in mounts if any(mounts.get(above) for above in each.parents)] == []


def test_neither_service_ends_because_the_other_container_is_not_ready() -> None:
    services = [each for each in resources() if each["kind"] == "Service"]
    assert {each["metadata"]["name"]: each["spec"].get("publishNotReadyAddresses") for each in services} == {
        "postgresql": True,
        "dbvalet": True,
    }


def test_no_secret_is_written_on_a_command_line() -> None:
    assert [file.name for file in DEPLOY.rglob("*") if file.is_file() and "--from-literal" in file.read_text()] == []
