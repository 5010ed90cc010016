"""The files in deploy/ are what Ray's launcher and KubeRay take, with versions this project is tested with.

No cluster is started. ``ray up``'s file is checked by the launcher's own code and schema; KubeRay's against
the fields of its API reference (v1.5.1), as its schema of a megabyte does not come with Ray.
"""

import copy
import re
import shlex
from pathlib import Path

import pytest
import tyro
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from training.commands.train import Args

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"

JOB_FIELDS = {
    "activeDeadlineSeconds", "backoffLimit", "clusterSelector", "deletionStrategy", "entrypoint",
    "entrypointNumCpus", "entrypointNumGpus", "entrypointResources", "jobId", "managedBy", "metadata",
    "rayClusterSpec", "runtimeEnvYAML", "shutdownAfterJobFinishes", "submissionMode", "submitterConfig",
    "submitterPodTemplate", "suspend", "ttlSecondsAfterFinished",
}  # fmt: skip
CLUSTER_FIELDS = {
    "authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions",
    "headGroupSpec", "headServiceAnnotations", "managedBy", "rayVersion", "suspend", "upgradeStrategy",
    "workerGroupSpecs",
}  # fmt: skip
HEAD_FIELDS = {
    "enableIngress", "headService", "labels", "rayStartParams", "resources", "serviceType", "template",
}  # fmt: skip
WORKER_FIELDS = {
    "groupName", "idleTimeoutSeconds", "labels", "maxReplicas", "minReplicas", "numOfHosts",
    "rayStartParams", "replicas", "resources", "scaleStrategy", "suspend", "template",
}  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> dict:
    return yaml.safe_load((DEPLOY / "cluster.yaml").read_text())


@pytest.fixture(scope="module")
def job() -> dict:
    documents = {
        document["kind"]: document for document in yaml.safe_load_all((DEPLOY / "rayjob.yaml").read_text())
    }
    assert documents.keys() == {"PersistentVolumeClaim", "RayJob"}
    return documents["RayJob"]


def test_ray_ups_file_passes_its_schema(cluster):
    prepared = prepare_config(copy.deepcopy(cluster))
    validate_config(prepared)
    assert any("--head" in command for command in prepared["head_start_ray_commands"])
    types = cluster["available_node_types"]
    assert cluster["max_workers"] >= sum(types[name]["max_workers"] for name in types)
    broken = copy.deepcopy(cluster)
    broken["available_node_type"] = broken.pop("available_node_types")
    with pytest.raises(Exception, match=r"available_node_type|head_node_type"):
        validate_config(prepare_config(broken))


def test_kuberays_file_has_its_fields(job):
    assert job["apiVersion"] == "ray.io/v1"
    spec = job["spec"]
    assert spec.keys() <= JOB_FIELDS
    assert spec["submissionMode"] in ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
    cluster = spec["rayClusterSpec"]
    assert cluster.keys() <= CLUSTER_FIELDS
    assert cluster["authOptions"]["mode"] in ("disabled", "token")
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert head.keys() <= HEAD_FIELDS
    for group in workers:
        assert group.keys() <= WORKER_FIELDS
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in (head, *workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}


def test_the_jobs_command_is_one_and_its_cluster_has_room_for_it(job):
    entrypoint = job["spec"]["entrypoint"]
    command, _, resuming = entrypoint.partition("$(")
    program, name, *arguments = shlex.split(command)
    assert (program, name) == ("perceiver-policy", "train")
    config = tyro.cli(Args, args=arguments).job
    assert config.ray_address == "auto"
    assert f"{config.run_dir}/config.yaml" in resuming
    (workers,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    places = workers["maxReplicas"] * int(container["resources"]["requests"]["cpu"])
    assert config.num_env_runners * config.num_cpus_per_env_runner <= places


def test_versions_are_the_tested_ones(job):
    (ray,) = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == ray
    images = re.findall(r"rayproject/ray:([\d.]+)-", (DEPLOY / "Dockerfile").read_text())
    assert set(images) == {ray}
