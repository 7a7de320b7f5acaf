"""Renders the chart with the real Helm, without a cluster.

Helm is a shared library (PyPI's helm-sdkpy bundles version 4). It has no dry run, but it writes a release down, rendered as a
whole, before it creates any of its resources. So `render` gives it a stand-in for Kubernetes that knows which kinds there
are, takes that record, and refuses everything after it.
"""

import base64
import ctypes
import gzip
import http.server
import json
import pathlib
import re
import tempfile
import threading

import yaml

# The kinds that the stand-in says it has: group and version, plural and kind.
KINDS = [
    ("v1", "configmaps", "ConfigMap"),
    ("v1", "secrets", "Secret"),
    ("v1", "services", "Service"),
    ("v1", "serviceaccounts", "ServiceAccount"),
    ("apps/v1", "deployments", "Deployment"),
    ("apps/v1", "statefulsets", "StatefulSet"),
    ("batch/v1", "jobs", "Job"),
    ("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget"),
    ("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy"),
    ("monitoring.coreos.com/v1", "servicemonitors", "ServiceMonitor"),
    ("monitoring.coreos.com/v1", "prometheusrules", "PrometheusRule"),
]
# What the stand-in says that it is.
KUBERNETES = {"major": "1", "minor": "32", "gitVersion": "v1.32.0"}


class HelmError(Exception):
    """Helm's own words."""


class Helm:
    """The library, in the directory that pip has put helm_sdkpy into."""

    def __init__(self, packages):
        [library] = pathlib.Path(packages).glob("helm_sdkpy/_lib/linux-*/libhelm_sdkpy.so")
        self.library = ctypes.CDLL(str(library))
        self.library.helm_sdkpy_last_error.restype = ctypes.c_char_p
        self.library.helm_sdkpy_version_string.restype = ctypes.c_char_p

    def version(self):
        return self.library.helm_sdkpy_version_string().decode()

    def lint(self, chart):
        """What `helm lint` says about a chart: a list of messages."""
        with self.configuration("http://127.0.0.1:1") as handle:
            result = json.loads(self.call("helm_sdkpy_lint", handle, str(chart)))
        return result.get("Messages") or result.get("messages") or []

    def package(self, chart, directory):
        """The path of the archive that `helm package` makes."""
        with self.configuration("http://127.0.0.1:1") as handle:
            return self.call("helm_sdkpy_package", handle, str(chart), str(directory))

    def render(self, chart, values, release="multiend", namespace="xmpp"):
        """What `helm install` would create: the resources, hooks among them, and the notes. Raises HelmError."""
        with StandIn() as server, self.configuration(server.address, namespace) as handle:
            options = {"wait": False, "timeout_seconds": 10, "disable_openapi_validation": True,
                       "server_side_apply": "false"}
            try:
                self.call("helm_sdkpy_install", handle, release, str(chart), json.dumps(values), "", json.dumps(options))
            except HelmError:
                if server.release is None:
                    raise
        return Rendered(server.release)

    def configuration(self, address, namespace="default"):
        return Configuration(self, address, namespace)

    def call(self, function, handle, *arguments):
        result = ctypes.c_char_p()
        arguments = [ctypes.c_char_p(argument.encode()) for argument in arguments]
        self.check(getattr(self.library, function)(ctypes.c_ulonglong(handle), *arguments, ctypes.byref(result)))
        return (result.value or b"").decode()

    def check(self, status):
        if status != 0:
            raise HelmError((self.library.helm_sdkpy_last_error() or b"no reason given").decode())


class Configuration:
    """Helm's connection to a cluster; a context manager that gives its handle."""

    def __init__(self, helm, address, namespace):
        self.helm = helm
        cluster = {"name": "c", "cluster": {"server": address}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u", "namespace": namespace}}
        config = {"apiVersion": "v1", "kind": "Config", "clusters": [cluster], "contexts": [context],
                  "users": [{"name": "u", "user": {}}], "current-context": "c"}
        self.file = tempfile.NamedTemporaryFile("w", suffix=".yaml")
        self.file.write(json.dumps(config))
        self.file.flush()
        self.namespace = namespace

    def __enter__(self):
        handle = ctypes.c_ulonglong()
        texts = [self.namespace, self.file.name, "c", "{}"]
        texts = [ctypes.c_char_p(text.encode()) for text in texts]
        self.helm.check(self.helm.library.helm_sdkpy_config_create(*texts, ctypes.byref(handle)))
        self.handle = handle.value
        return self.handle

    def __exit__(self, *_):
        self.helm.library.helm_sdkpy_config_destroy(ctypes.c_ulonglong(self.handle))
        self.file.close()


class Rendered:
    """A release as Helm has written it down."""

    def __init__(self, release):
        self.notes = release["info"].get("notes", "")
        self.resources = documents(release.get("manifest", ""))
        self.hooks = [resource for hook in release.get("hooks", []) for resource in documents(hook["manifest"])]

    def all(self):
        return self.resources + self.hooks

    def of(self, kind):
        """The resources of a kind, hooks excepted."""
        return [resource for resource in self.resources if resource["kind"] == kind]

    def one(self, kind):
        [resource] = self.of(kind)
        return resource


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


class StandIn:
    """A Kubernetes that has nothing, and takes nothing but the record of a release."""

    def __init__(self):
        self.release = None
        stand_in = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                path = self.path.split("?")[0].strip("/")
                found = discovery(path)
                if found is None and path.endswith("/secrets"):
                    found = {"kind": "SecretList", "apiVersion": "v1", "metadata": {}, "items": []}
                self.answer(200 if found else 404, found or failure(404, "NotFound"))

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                # A Secret, as protobuf: the release is in it as text, gzip in base64.
                packed = re.search(rb"H4sI[A-Za-z0-9+/=]+", body)
                if packed and b"helm.sh/release.v1" in body:
                    stand_in.release = json.loads(gzip.decompress(base64.b64decode(packed[0])))
                self.answer(403, failure(403, "Forbidden"))

            def do_PUT(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(403, failure(403, "Forbidden"))

            do_PATCH = do_DELETE = do_PUT

            def answer(self, status, content):
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def failure(code, reason):
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason}


def discovery(path):
    """What Kubernetes says of itself and its kinds."""
    if path == "version":
        return KUBERNETES
    if path == "api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    versions = sorted({version for version, _, _ in KINDS})
    if path == "apis":
        groups = [{"name": version.split("/")[0], "preferredVersion": {"groupVersion": version, "version": "v1"},
                   "versions": [{"groupVersion": version, "version": "v1"}]} for version in versions if "/" in version]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    version = path.removeprefix("apis/").removeprefix("api/")
    if version not in versions:
        return None
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    kinds = [{"name": plural, "singularName": "", "namespaced": True, "kind": kind, "verbs": verbs}
             for of, plural, kind in KINDS if of == version]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": kinds}
