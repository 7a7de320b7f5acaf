"""The chart, rendered by the real Helm and held to Kubernetes' schemas and to what its parts must be to each other.

Arguments come from run.sh: HELM_PACKAGES, MULTIEND (the built program), NODE_PATH.
"""

import json
import os
import pathlib
import subprocess
import tarfile
import tempfile
import tomllib
import unittest

import kubernetes_validate
import yaml

import helm

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent
CHART = HERE.parent / "multiend"
HELM = helm.Helm(os.environ["HELM_PACKAGES"])
# The oldest that Chart.yaml takes, and the newest of which there are schemas.
OLDEST, NEWEST = "1.25", kubernetes_validate.latest_version()
OPERATOR = "monitoring.coreos.com/v1"
SECRETS = "/run/secrets/multiend"


def values(name):
    return yaml.safe_load((HERE / "values" / f"{name}.yaml").read_text())


# Each set of values, by name.
SETS = {"default": {}} | {path.stem: values(path.stem) for path in sorted((HERE / "values").glob("*.yaml"))}
RENDERED = {name: HELM.render(CHART, content) for name, content in SETS.items()}


def pod_template(rendered):
    [workload] = rendered.of("StatefulSet") + rendered.of("Deployment")
    return workload["spec"]["template"]


def pods(rendered):
    """The pod specs: that of the workload, and of jobs among the hooks."""
    jobs = [hook["spec"]["template"] for hook in rendered.hooks if hook["kind"] == "Job"]
    return [template["spec"] for template in [pod_template(rendered), *jobs]]


def containers(pod):
    return pod.get("initContainers", []) + pod["containers"]


def configuration(resource):
    return tomllib.loads(resource["data"]["multiend.toml"])


def covers(selector, labels):
    """Whether a selector takes what has these labels."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(labels.get(term["key"]) in term["values"] for term in selector.get("matchExpressions", []))


def for_each(test):
    """Runs a test for each set of values, with what is rendered from it."""
    def tests(self):
        for name, rendered in RENDERED.items():
            with self.subTest(values=name):
                test(self, rendered)

    return tests


class EachSetOfValues(unittest.TestCase):
    @for_each
    def test_kubernetes_takes_every_resource(self, rendered):
        self.assertGreaterEqual(len(rendered.resources), 3)
        for resource in rendered.all():
            if resource["apiVersion"] != OPERATOR:
                for version in (OLDEST, NEWEST):
                    kubernetes_validate.validate(resource, version, strict=True)

    def test_the_prometheus_operator_takes_its_resources(self):
        resources = [resource for rendered in RENDERED.values() for resource in rendered.all()
                     if resource["apiVersion"] == OPERATOR]
        checked = subprocess.run(["node", str(HERE / "operator_check.js")], input=json.dumps(resources), text=True,
                                 capture_output=True, check=False)
        self.assertEqual(checked.returncode, 0, checked.stderr)

    @for_each
    def test_multiend_takes_the_configuration(self, rendered):
        maps = [resource for resource in rendered.all() if "multiend.toml" in resource.get("data", {})]
        with tempfile.TemporaryDirectory() as directory:
            for file, content in [("component-secret", "s"), ("database-url", "postgres://u:p@localhost/d")]:
                pathlib.Path(directory, file).write_text(content)
            for config in maps:
                path = pathlib.Path(directory, "multiend.toml")
                path.write_text(config["data"]["multiend.toml"].replace(SECRETS, directory))
                command = [os.environ["MULTIEND"], "check-config", "--offline", "--config", str(path)]
                checked = subprocess.run(command, text=True, capture_output=True, check=False)
                self.assertEqual((checked.returncode, checked.stderr), (0, ""))
                self.assertIn(str(configuration(config)["component"]["name"]), checked.stdout)

    @for_each
    def test_a_pod_has_nobodys_rights(self, rendered):
        for pod in pods(rendered):
            self.assertFalse(pod["automountServiceAccountToken"])
            self.assertTrue(pod["securityContext"]["runAsNonRoot"])
            self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
            for container in containers(pod):
                security = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                            "capabilities": {"drop": ["ALL"]}}
                self.assertEqual(container["securityContext"], security)
                self.assertIn("memory", container["resources"]["limits"])

    @for_each
    def test_what_is_named_is_there(self, rendered):
        maps = {resource["metadata"]["name"] for resource in rendered.of("ConfigMap")}
        hook_maps = {hook["metadata"]["name"] for hook in rendered.hooks if hook["kind"] == "ConfigMap"}
        workload, *jobs = pods(rendered)
        claims = {claim["metadata"]["name"] for resource in rendered.of("StatefulSet")
                  for claim in resource["spec"]["volumeClaimTemplates"]}
        # Hooks run before the rest is there, and may name hooks only.
        for pod, there, claimed in [(workload, maps, claims)] + [(job, hook_maps, set()) for job in jobs]:
            volumes = {volume["name"] for volume in pod["volumes"]} | claimed
            self.assertEqual(len(volumes), len(pod["volumes"]) + len(claimed))
            for volume in pod["volumes"]:
                if "configMap" in volume:
                    self.assertIn(volume["configMap"]["name"], there)
            for container in containers(pod):
                self.assertEqual({mount["name"] for mount in container["volumeMounts"]}, volumes)
        accounts = {resource["metadata"]["name"] for resource in rendered.of("ServiceAccount")}
        self.assertIn(workload["serviceAccountName"], accounts | {"default"})
        for job in jobs:
            self.assertNotIn("serviceAccountName", job)
        for resource in rendered.of("StatefulSet"):
            self.assertEqual(resource["spec"]["serviceName"], rendered.one("Service")["metadata"]["name"])

    @for_each
    def test_selectors_select(self, rendered):
        labels = pod_template(rendered)["metadata"]["labels"]
        service = rendered.one("Service")
        self.assertTrue(covers({"matchLabels": service["spec"]["selector"]}, labels))
        for resource in rendered.of("StatefulSet") + rendered.of("Deployment") + rendered.of("PodDisruptionBudget"):
            self.assertTrue(covers(resource["spec"]["selector"], labels), resource["kind"])
        for resource in rendered.of("ServiceMonitor"):
            self.assertTrue(covers(resource["spec"]["selector"], service["metadata"]["labels"]))
            [endpoint] = resource["spec"]["endpoints"]
            self.assertIn(endpoint["port"], [port["name"] for port in service["spec"]["ports"]])
        jobs = [hook["spec"]["template"]["metadata"]["labels"] for hook in rendered.hooks if hook["kind"] == "Job"]
        for resource in rendered.of("NetworkPolicy"):
            for of_pod in [labels, *jobs]:
                self.assertTrue(covers(resource["spec"]["podSelector"], of_pod))
        # Metrics of a job that migrates are none, and it is no pod of the budget.
        for of_job in jobs:
            self.assertFalse(covers({"matchLabels": service["spec"]["selector"]}, of_job))

    @for_each
    def test_probes_and_metrics_go_where_multiend_listens(self, rendered):
        [container] = pod_template(rendered)["spec"]["containers"]
        [port] = container["ports"]
        config = configuration(next(map for map in rendered.of("ConfigMap") if "multiend.toml" in map["data"]))
        self.assertTrue(config["http"]["listen"].endswith(f":{port['containerPort']}"))
        for probe, path in [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]:
            self.assertEqual(container[probe]["httpGet"], {"path": path, "port": port["name"]})

    @for_each
    def test_secrets_are_named_and_never_held(self, rendered):
        self.assertEqual([resource for resource in rendered.all() if resource["kind"] == "Secret"], [])
        for resource in rendered.all():
            if "multiend.toml" in resource.get("data", {}):
                config = configuration(resource)
                self.assertEqual(config["component"]["secret_file"], f"{SECRETS}/component-secret")
                self.assertNotIn("secret", config["component"])


class OneSetOfValues(unittest.TestCase):
    def test_helm_lints_it(self):
        for message in HELM.lint(CHART):
            # 1 is a hint: that there is no icon.
            self.assertLessEqual(message["Severity"], 1, message)

    def test_every_key_of_the_configuration_can_be_set(self):
        example = tomllib.loads((ROOT / "docs" / "multiend.example.toml").read_text())
        config = {key: value for key, value in example.items() if key not in ("data_dir", "database")}
        config["component"] = {key: value for key, value in config["component"].items() if key != "secret"}
        config["http"] = {key: value for key, value in config["http"].items() if key != "listen"}
        rendered = HELM.render(CHART, {"config": config})
        shown = configuration(rendered.one("ConfigMap"))
        self.assertEqual(shown.pop("data_dir"), "/var/lib/multiend")
        del shown["component"]["secret_file"], shown["http"]["listen"]
        self.assertEqual(shown, config)

    def test_with_sqlite_the_pod_migrates_and_with_postgresql_a_job_does_before(self):
        sqlite, postgres = RENDERED["default"], RENDERED["everything"]
        [migrate] = pod_template(sqlite)["spec"]["initContainers"]
        self.assertEqual((migrate["args"], sqlite.hooks), (["migrate"], []))
        self.assertNotIn("initContainers", pod_template(postgres)["spec"])
        [job] = [hook for hook in postgres.hooks if hook["kind"] == "Job"]
        [container] = job["spec"]["template"]["spec"]["containers"]
        self.assertEqual(container["args"], ["migrate"])
        weights = {hook["kind"]: int(hook["metadata"]["annotations"]["helm.sh/hook-weight"]) for hook in postgres.hooks}
        self.assertLess(weights["ConfigMap"], weights["Job"])
        for hook in postgres.hooks:
            self.assertEqual(hook["metadata"]["annotations"]["helm.sh/hook"], "pre-install,pre-upgrade")

    def test_pods_with_volumes_keep_their_names_and_those_without_are_a_deployment(self):
        self.assertEqual(RENDERED["everything"].one("StatefulSet")["spec"]["replicas"], 3)
        deployment = RENDERED["without-volumes"].one("Deployment")
        self.assertEqual(deployment["metadata"]["name"], "omemo")
        # The server takes one connection under a name: nobody new before somebody old has gone.
        self.assertEqual(deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"], 0)

    def test_each_pod_has_a_name_of_its_own_on_prosody(self):
        rendered = RENDERED["everything"]
        for container in containers(pod_template(rendered)["spec"]):
            env = {variable["name"]: variable for variable in container["env"]}
            self.assertEqual(env["MULTIEND_COMPONENT__NAME"]["value"], "$(POD_NAME).example.org")
            # Kubernetes puts in only what stands before.
            names = [variable["name"] for variable in container["env"]]
            self.assertLess(names.index("POD_NAME"), names.index("MULTIEND_COMPONENT__NAME"))
        for number in range(3):
            self.assertIn(f"multiend-{number}.example.org", rendered.notes)

    def test_the_network_is_open_to_whom_it_must_be(self):
        policy = RENDERED["everything"].one("NetworkPolicy")["spec"]
        ports = [[port["port"] for port in rule["ports"]] for rule in policy["egress"]]
        self.assertEqual(ports, [[53, 53], [5347], [5433]])
        self.assertEqual(policy["egress"][1]["to"], [{"podSelector": {"matchLabels": {"app": "prosody"}}}])
        self.assertEqual([port["port"] for port in policy["ingress"][0]["ports"]], [9614])
        self.assertEqual(len(RENDERED["default"].one("NetworkPolicy")["spec"]["egress"]), 2)

    def test_rules_and_dashboards_are_those_of_the_repository(self):
        rendered = RENDERED["everything"]
        rules = yaml.safe_load((ROOT / "monitoring" / "alerts.yml").read_text())
        self.assertEqual(rendered.one("PrometheusRule")["spec"], rules)
        [dashboards] = [map for map in rendered.of("ConfigMap") if map["metadata"]["name"].endswith("-dashboards")]
        files = {f"multiend-{path.name}": json.loads(path.read_text())
                 for path in (ROOT / "monitoring" / "dashboards").glob("*.json")}
        self.assertEqual({name: json.loads(text) for name, text in dashboards["data"].items()}, files)
        self.assertEqual(len(files), 3)

    def test_the_job_of_the_rules_is_that_of_the_service_monitor(self):
        rendered = RENDERED["everything"]
        label = rendered.one("ServiceMonitor")["spec"]["jobLabel"]
        self.assertEqual(rendered.one("Service")["metadata"]["labels"][label], "multiend")
        self.assertIn('up{job="multiend"}', json.dumps(rendered.one("PrometheusRule")).replace('\\"', '"'))

    def test_the_package_holds_everything(self):
        with tempfile.TemporaryDirectory() as directory:
            archive = HELM.package(CHART, directory)
            with tarfile.open(archive) as tar:
                self.assertEqual([member.name for member in tar if not member.isfile()], [])
            packed = HELM.render(archive, SETS["everything"])
        self.assertEqual(packed.all(), RENDERED["everything"].all())

    def test_a_change_of_the_configuration_restarts_the_pods(self):
        def checksum(rendered):
            return pod_template(rendered)["metadata"]["annotations"]["checksum/config"]

        changed = HELM.render(CHART, {"config": {"archive": {"page_max": 99}}})
        self.assertNotEqual(checksum(changed), checksum(RENDERED["default"]))
        self.assertEqual(checksum(HELM.render(CHART, {"image": {"tag": "2"}})), checksum(RENDERED["default"]))

    def test_wrong_values_are_refused(self):
        for wrong, said in [
            ({"replicaCount": 2}, "replicaCount"),
            ({"persistence": {"enabled": False}}, "persistence/enabled"),
            ({"persistance": {"enabled": False}}, "persistance"),
            ({"database": {"type": "mysql"}}, "database/type"),
            ({"database": {"type": "postgres", "existingSecret": ""}}, "database/existingSecret"),
            ({"config": {"component": {"secret": "in the open"}}}, "config/component/secret"),
            ({"config": {"database": "postgres://u:p@h/d"}}, "config/database"),
            ({"config": {"component": {"server": "prosody"}}}, "config/component/server"),
            ({"config": {"domains": []}}, "config/domains"),
            ({"component": {"existingSecret": ""}}, "component/existingSecret"),
            ({"database": {"type": "postgres"}, "persistence": {"enabled": False},
              "component": {"perPodDomain": "example.org"}}, "component/perPodDomain"),
            ({"podDisruptionBudget": {"maxUnavailable": "half"}}, "podDisruptionBudget/maxUnavailable"),
        ]:
            with self.subTest(values=wrong):
                with self.assertRaises(helm.HelmError) as refused:
                    HELM.render(CHART, wrong)
                self.assertIn(said, str(refused.exception))

    def test_long_names_of_releases_are_cut(self):
        for release in ("a" * 53, "b"):
            for resource in HELM.render(CHART, {}, release=release).all():
                self.assertLessEqual(len(resource["metadata"]["name"]), 52, resource["kind"])

    def test_the_versions_are_those_of_the_program(self):
        cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
        self.assertEqual((chart["version"], chart["appVersion"]), (cargo, cargo))

    def test_the_readme_has_every_value_with_its_default(self):
        listed = {}
        for line in (CHART / "README.md").read_text().splitlines():
            if line.startswith("| `"):
                name, default, _ = (cell.strip() for cell in line.strip("|").split("|", 2))
                listed[name.strip("`")] = default.strip("`")
        defaults = {name: json.dumps(value) for name, value in
                    flattened(yaml.safe_load((CHART / "values.yaml").read_text()))}
        self.assertEqual(listed, defaults)


def flattened(content, above=""):
    """Names and values, one for each that has no others below it."""
    for key, value in content.items():
        name = f"{above}{key}"
        if isinstance(value, dict) and value and key not in ("labels", "requests", "limits"):
            yield from flattened(value, f"{name}.")
        else:
            yield name, value


if __name__ == "__main__":
    unittest.main()
