"""Zips as people and tools make them, and as nobody should: by CreateFunction."""

import io
import json
import stat
import struct
import subprocess
import tempfile
import unittest
import zipfile

from botocore.exceptions import ClientError

import serving
from managing import ROLE

BOOTSTRAP = """#!/bin/sh
while :; do
  head=$(mktemp)
  curl -sS -D "$head" -o /dev/null "http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/next"
  id=$(tr -d '\\r' <"$head" | sed -n 's/^[Ll]ambda-[Rr]untime-[Aa]ws-[Rr]equest-[Ii]d: //p')
  sh ./report.sh | curl -sS -o /dev/null -X POST --data-binary @- \\
    "http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime/invocation/$id/response"
done
"""

# What the function sees of its files.
REPORT = """printf '{"nested":"%s","linked":"%s","stored":"%s","runs":%s}' \\
  "$(cat a/b/c.txt)" "$(cat link.txt)" "$(cat stored.txt)" "$([ -x tool ] && echo true || echo false)"
"""

server = client = None


def setUpModule():
    global server, client
    server = serving.Server()
    server.start()
    client = server.client


def tearDownModule():
    server.stop()


def zipped(*entries):
    """A zip of (name, content, mode) with the modes that Unix tools write."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content, mode in entries:
            entry = zipfile.ZipInfo(name)
            entry.create_system = 3
            entry.external_attr = mode << 16
            entry.compress_type = zipfile.ZIP_STORED if name == "stored.txt" else zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
    return out.getvalue()


FILE, PROGRAM, LINK = stat.S_IFREG | 0o644, stat.S_IFREG | 0o755, stat.S_IFLNK | 0o777


def create(name, code):
    client.create_function(
        FunctionName=name,
        Runtime="provided.al2023",
        Role=ROLE,
        Handler="any",
        Code={"ZipFile": code},
        Timeout=20,
    )


class Zips(unittest.TestCase):
    def report(self, name):
        reply = server.invoke(name)
        self.assertNotIn("FunctionError", reply, reply["Payload"])
        return json.loads(reply["Payload"])

    def test_links_bits_and_folders_arrive(self):
        create(
            "unix",
            zipped(
                ("bootstrap", BOOTSTRAP, PROGRAM),
                ("report.sh", REPORT, FILE),
                ("a/b/c.txt", "deep", FILE),
                ("link.txt", "a/b/c.txt", LINK),
                ("stored.txt", "plain", FILE),
                ("tool", "#!/bin/sh\n", PROGRAM),
            ),
        )
        expected = {"nested": "deep", "linked": "deep", "stored": "plain", "runs": True}
        self.assertEqual(self.report("unix"), expected)

    def test_what_the_zip_tool_makes(self):
        with tempfile.TemporaryDirectory() as place:
            script = (
                "mkdir -p a/b && printf deep >a/b/c.txt && ln -s a/b/c.txt link.txt\n"
                "printf plain >stored.txt && printf x >tool && chmod +x tool bootstrap\n"
            )
            for name, text in [("bootstrap", BOOTSTRAP), ("report.sh", REPORT)]:
                with open(f"{place}/{name}", "w") as file:
                    file.write(text)
            subprocess.run(["sh", "-ec", script], cwd=place, check=True)
            packed = server.root / "tool.zip"
            subprocess.run(["zip", "-q", "-r", "-y", packed, "."], cwd=place, check=True)
        create("tool", packed.read_bytes())
        self.assertEqual(self.report("tool")["linked"], "deep")

    def test_what_reaches_out_or_is_no_file_is_refused(self):
        twice = zipped(("first", "1", FILE), ("other", "2", FILE)).replace(b"other", b"first")
        cut = zipped(("a", "x" * 1000, FILE))[:-30]
        for what, code in {
            "a path up": zipped(("../evil", "x", FILE)),
            "a path up inside": zipped(("a/../../evil", "x", FILE)),
            "an absolute path": zipped(("/etc/evil", "x", FILE)),
            "a link out": zipped(("out", "/etc", LINK), ("out/evil", "x", FILE)),
            "a link up": zipped(("up", "../..", LINK)),
            "a device": zipped(("null", "", stat.S_IFCHR | 0o666)),
            "a pipe": zipped(("pipe", "", stat.S_IFIFO | 0o666)),
            "one name twice": twice,
            "cut off": cut,
            "nothing": b"",
        }.items():
            with self.subTest(what):
                with self.assertRaises(ClientError) as caught:
                    create("evil", code)
                error = caught.exception.response
                self.assertEqual(error["Error"]["Code"], "InvalidParameterValueException", error)
                words = "Could not unzip uploaded file. Please check your file, then try to upload"
                self.assertEqual(error["Error"]["Message"], f"{words} again.")
        left = [entry for entry in (server.root / "data").rglob("*evil*")]
        self.assertEqual(left, [])

    def test_bombs_are_refused_by_their_size(self):
        megabyte = b"\0" * (1 << 20)
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for n in range(260):
                archive.writestr(f"part-{n}", megabyte)
        bomb = out.getvalue()
        # Sizes in the directory are only claims; this one is a lie.
        lie = bomb.replace(struct.pack("<L", 1 << 20), struct.pack("<L", 1))
        for code in [bomb, lie]:
            with self.assertRaises(ClientError) as caught:
                create("bomb", code)
            error = caught.exception.response["Error"]
            self.assertEqual(error["Code"], "InvalidParameterValueException")
            self.assertRegex(error["Message"], "Unzipped size must be smaller|Could not unzip")

    def test_a_zip_beyond_fifty_megabytes_is_refused(self):
        with self.assertRaises(ClientError) as caught:
            create("large", zipped(("stored.txt", b"x" * (50 << 20), FILE)))
        error = caught.exception.response
        self.assertEqual(error["ResponseMetadata"]["HTTPStatusCode"], 413)
        self.assertEqual(error["Error"]["Code"], "RequestEntityTooLargeException")
        message = "Zipped size must be smaller than 52428800 bytes"
        self.assertEqual(error["Error"]["Message"], message)
