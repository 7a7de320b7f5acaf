#!/usr/bin/env python3
"""Checks what the packages are made from: `packaging/check.py`; and with `--deb FILE` a Debian package that was made.

Arguments from the Makefile: HADOLINT, the linter of Dockerfiles; MULTIEND, the built program.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib
import unittest

ROOT = pathlib.Path(__file__).parent.parent
DEBIAN = ROOT / "packaging" / "debian"
CARGO = tomllib.loads((ROOT / "Cargo.toml").read_text())
VERSION = CARGO["workspace"]["package"]["version"]
# What `systemd-analyze security` may say at most, times ten: 0 is a service that can do nothing, 100 one that can do all.
EXPOSURE = 15
CHECK = ("check-config", "--offline", "--config", str(DEBIAN / "multiend.toml"))
PACKAGE = None


def run(*command, **options):
    return subprocess.run(command, text=True, capture_output=True, check=False, **options)


def instructions(dockerfile):
    """Pairs of an instruction and its arguments, continued lines put together, one list for each stage."""
    text = re.sub(r"\\\n", " ", dockerfile.read_text())
    stages = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        word, rest = line.split(None, 1)
        if word == "FROM":
            stages.append([])
        stages[-1].append((word, rest))
    return stages


class Unit(unittest.TestCase):
    def setUp(self):
        self.text = (DEBIAN / "multiend.service").read_text()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        # Elsewhere there need not be a program of this name.
        self.copy = pathlib.Path(directory.name, "multiend.service")
        self.copy.write_text(self.text.replace("/usr/bin/multiend", "/bin/true"))

    def test_systemd_understands_it(self):
        verified = run("systemd-analyze", "verify", str(self.copy))
        self.assertEqual((verified.returncode, verified.stdout + verified.stderr), (0, ""))

    def test_it_can_do_little(self):
        judged = run("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", str(self.copy))
        self.assertEqual(judged.returncode, 0, judged.stdout + judged.stderr)

    def test_it_names_the_user_and_directories_that_there_are(self):
        [user] = re.findall(r"^User=(.*)$", self.text, re.M)
        self.assertIn(f"\nu     {user} ", (DEBIAN / "multiend.sysusers").read_text())
        config = tomllib.loads((DEBIAN / "multiend.toml").read_text())
        [state] = re.findall(r"^StateDirectory=(.*)$", self.text, re.M)
        self.assertEqual(config["data_dir"], f"/var/lib/{state}")
        self.assertIn("--config /etc/multiend/multiend.toml\n", self.text)


class Debian(unittest.TestCase):
    def test_the_configuration_is_one(self):
        checked = run(os.environ["MULTIEND"], *CHECK)
        self.assertEqual(checked.returncode, 0, checked.stderr)

    def test_everything_that_goes_into_it_is_there(self):
        for source, _, _ in CARGO["package"]["metadata"]["deb"]["assets"]:
            if not source.startswith("target/"):
                self.assertTrue(list(ROOT.glob(source)), source)

    def test_its_version_is_that_of_the_program(self):
        self.assertTrue((DEBIAN / "changelog").read_text().startswith(f"multiend ({VERSION}-"))

    def test_it_holds_the_licence_as_it_is(self):
        self.assertTrue((DEBIAN / "licenses").read_text().endswith((ROOT / "LICENSE-MIT").read_text()))

    def test_its_scripts_are_scripts(self):
        for name in ("postinst", "postrm"):
            self.assertEqual(run("sh", "-n", str(DEBIAN / name)).returncode, 0, name)


class Image(unittest.TestCase):
    def setUp(self):
        self.build, self.image = instructions(ROOT / "Dockerfile")

    def test_hadolint_has_nothing_to_say(self):
        linted = run(os.environ["HADOLINT"], str(ROOT / "Dockerfile"))
        self.assertEqual((linted.returncode, linted.stdout), (0, ""))

    def test_its_user_is_nobody_and_the_one_of_the_chart(self):
        [user] = [rest for word, rest in self.image if word == "USER"]
        number, group = user.split(":")
        self.assertEqual(number, group)
        self.assertNotEqual(int(number), 0)
        pod = (ROOT / "charts" / "multiend" / "templates" / "_pod.tpl").read_text()
        for key in ("runAsUser", "runAsGroup", "fsGroup"):
            self.assertIn(f"{key}: {number}\n", pod)
        owners = {owner for word, rest in self.image if word == "COPY" for owner in re.findall(r"--chown=(\S+)", rest)}
        self.assertEqual(owners, {user})

    def test_the_compiler_is_new_enough(self):
        [(_, base)] = [part for part in self.build if part[0] == "FROM"]
        self.assertIn(f"rust:{CARGO['workspace']['package']['rust-version']}-", base)

    def test_its_environment_is_a_configuration(self):
        [variables] = [rest for word, rest in self.image if word == "ENV"]
        environment = dict(pair.split("=", 1) for pair in variables.split())
        self.assertEqual(environment.pop("MULTIEND_CONFIG"), "/etc/multiend/multiend.toml")
        # Without a writable place for temporary files, SQLite cannot migrate.
        self.assertEqual(environment["SQLITE_TMPDIR"], environment["MULTIEND_DATA_DIR"])
        checked = run(os.environ["MULTIEND"], *CHECK, env=environment)
        self.assertEqual(checked.returncode, 0, checked.stderr)
        self.assertIn("0.0.0.0:9614", checked.stdout)

    def test_what_is_built_is_what_is_sent_to_the_builder(self):
        sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
        for path in sent:
            self.assertTrue((ROOT / path).exists(), path)
        manifests = ["Cargo.toml", *(f"{member}/Cargo.toml" for member in CARGO["workspace"]["members"])]
        for manifest in manifests:
            self.assertTrue(any(pathlib.Path(manifest).is_relative_to(path) for path in sent), manifest)
        [command] = [rest for word, rest in self.build if word == "RUN"]
        for path in re.findall(r"(?:docs/\S+|LICENSE-\S+)", command):
            self.assertIn(path, sent)


class Package(unittest.TestCase):
    """The Debian package itself."""

    def setUp(self):
        if PACKAGE is None:
            self.skipTest("no package was named")

    def field(self, name):
        return run("dpkg-deb", "--field", PACKAGE, name).stdout.strip()

    def test_it_is_this_version_and_needs_only_libraries_and_the_making_of_users(self):
        self.assertEqual(self.field("Package"), "multiend")
        self.assertTrue(self.field("Version").startswith(VERSION))
        needs = {need.split()[0] for need in self.field("Depends").split(", ")}
        self.assertLessEqual(needs, {"libc6", "libgcc-s1", "systemd"})

    def test_it_holds_program_unit_user_configuration_and_plugins(self):
        listed = {}
        for line in run("dpkg-deb", "--contents", PACKAGE).stdout.splitlines():
            mode, owner, *_, path = line.split(None, 5)
            listed[path] = (mode, owner)
        modes = {"./usr/bin/multiend": "-rwxr-xr-x", "./etc/multiend/multiend.toml": "-rw-r-----",
                 "./usr/lib/systemd/system/multiend.service": "-rw-r--r--",
                 "./usr/lib/sysusers.d/multiend.conf": "-rw-r--r--",
                 "./usr/share/multiend/plugins/prosody/mod_multiend/mod_multiend.lua": "-rw-r--r--",
                 "./usr/share/multiend/plugins/ejabberd/compile": "-rwxr-xr-x",
                 "./usr/share/multiend/plugins/ejabberd/mod_multiend/src/mod_multiend.erl": "-rw-r--r--",
                 "./usr/share/multiend/plugins/ejabberd/mod_multiend/src/mod_multiend_archive.erl": "-rw-r--r--",
                 "./usr/share/multiend/monitoring/dashboards/overview.json": "-rw-r--r--",
                 "./usr/share/multiend/monitoring/alerts.yml": "-rw-r--r--"}
        for path, mode in modes.items():
            # Where units lie depends on whether /lib is a link.
            path = path if path in listed else path.replace("./usr/lib/systemd", "./lib/systemd")
            self.assertIn(listed.get(path), [(mode, "root/root"), (mode, "0/0")], path)
        self.assertFalse([path for path, (mode, _) in listed.items() if "s" in mode[3:9].lower()], "set-id")

    def test_an_upgrade_keeps_the_configuration(self):
        with tempfile.TemporaryDirectory() as directory:
            run("dpkg-deb", "--control", PACKAGE, directory)
            self.assertEqual(pathlib.Path(directory, "conffiles").read_text(), "/etc/multiend/multiend.toml\n")
            installed = pathlib.Path(directory, "postinst").read_text()
        made, owned = re.search("systemd-sysusers .*multiend.conf", installed), re.search("chown root:multiend", installed)
        self.assertLess(made.start(), owned.start(), "the user is there before it owns anything")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--deb"]:
        PACKAGE = sys.argv[2]
        unittest.main(argv=[sys.argv[0], "Package"])
    unittest.main()
