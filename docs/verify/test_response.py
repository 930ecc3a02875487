"""response.py against tests/vectors/verify. Run it from the root of the repository:

    /usr/bin/python3 -m unittest docs/verify/test_response.py
"""
import contextlib
import http.server
import io
import json
import sys
import tempfile
import threading
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE))
import response  # noqa: E402
from test_verify import VECTORS, edited, load  # noqa: E402

AT = "2026-09-20T12:00:30Z"


def run(*arguments):
    """The exit status and the answer, as a shell sees them."""
    out = io.StringIO()
    sys.argv = ["response.py", *map(str, arguments)]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        try:
            response.main()
        except SystemExit as end:
            return end.code, json.loads(out.getvalue() or "null")
    raise AssertionError("it ended without a status")


def found(answer):
    """Each claim by its place and its name."""
    claims = {f"{number}/{claim['claim']}": claim for number, provider in enumerate(answer.get("providers", []))
              for claim in provider["findings"]}
    for claim in answer.get("findings", []):
        claims["/".join(filter(None, (claim.get("in"), claim["claim"])))] = claim
    return claims


class Folder(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        for name in ("made_root.pem", "feed.json", "body", "headers", "sealed.json", "made_trust.json"):
            (self.folder / name).write_bytes((VECTORS / name).read_bytes())

    def write(self, name, source, edits):
        (self.folder / name).write_bytes(edited((VECTORS / source).read_bytes(), edits))
        return self.folder / name

    def words(self, case):
        trust = self.write("made_trust.json", "made_trust.json", case.get("trust", []))
        feed = self.write("feed.json", "feed.json", case.get("feed", []))
        if case["what"] == "feed":
            return ["feed", feed, "--trust", trust, "--at", case["at"]]
        streamed = case.get("reply") == "stream"
        headers = self.write("headers", "stream_headers" if streamed else "headers", case.get("headers", []))
        body = self.write("body", "stream" if streamed else "body", case.get("body", []))
        words = ["response", "--headers", headers, "--body", body, "--feed", feed, "--trust", trust, "--at", case["at"]]
        if "evidence" in case:
            words += ["--evidence", self.write("evidence.json", "sealed.json", case["evidence"])]
        return words


class Table(Folder):
    def test_every_case(self):
        cases = load("reply_cases.json")
        self.assertGreater(len(cases), 120)
        for case in cases:
            with self.subTest(case["name"]):
                status, answer = run(*self.words(case))
                expect = case["expect"]
                self.assertEqual((status, answer["verdict"]), (expect["exit"], expect["verdict"]), answer)
                standings = {name: claim["standing"] for name, claim in found(answer).items()}
                named = {name: standings.get(name, "absent") for name in expect["claims"]}
                self.assertEqual(named, expect["claims"], answer)
                self.assertEqual(len(answer["reasons"]), list(standings.values()).count("failed"))

    def test_every_claim_is_tried(self):
        tried = {(name.split("/")[-1], standing) for case in load("reply_cases.json")
                 for name, standing in case["expect"]["claims"].items()}
        for claim in ("listed", "registration", "apple", "apple_posture", "key_named", "signed", "same_key"):
            self.assertIn((claim, "failed"), tried)
            self.assertTrue({(claim, "proved"), (claim, "asserted")} & tried, claim)


class OneByte(Folder):
    def test_of_a_body(self):
        body = (VECTORS / "body").read_bytes()
        reply = response.Reply((VECTORS / "headers").read_bytes())
        self.assertIsNone(reply.signed(body))
        for at in range(len(body)):
            with self.assertRaises(Exception, msg=f"byte {at}"):
                reply.signed(body[:at] + bytes([body[at] ^ 1]) + body[at + 1:])

    def test_of_a_stream(self):
        """Also of its end, where the signature itself stands."""
        body = (VECTORS / "stream").read_bytes()
        headers = (VECTORS / "stream_headers").read_bytes()
        for saved in (headers, headers.split(b"\r\n\r\n")[0] + b"\r\n\r\n"):
            reply = response.Reply(saved)
            self.assertIsNone(reply.signed(body))
            for at in range(len(body)):
                with self.assertRaises(Exception, msg=f"byte {at}"):
                    reply.signed(body[:at] + bytes([body[at] ^ 1]) + body[at + 1:])


class Server(http.server.BaseHTTPRequestHandler):
    """What it says to each path; what was asked for."""
    says, asked = {}, []

    def do_GET(self):
        self.asked.append(self.path)
        status, body = self.says.get(self.path, (404, b"{}"))
        self.send_response(status)
        if status == 302:
            self.send_header("Location", body.decode())
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Urls(Folder):
    def setUp(self):
        super().setUp()
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.origin = f"http://127.0.0.1:{server.server_port}"
        Server.says, Server.asked = {"/v1/providers/attestation": (200, (VECTORS / "feed.json").read_bytes())}, []
        self.id = load("feed.json")["providers"][1]["provider_id"]

    def check(self, feed):
        return run("response", "--headers", self.folder / "headers", "--body", self.folder / "body", "--feed", feed,
                   "--trust", self.folder / "made_trust.json", "--at", AT)

    def test_the_evidence_comes_from_where_the_feed_does(self):
        feed = self.origin + "/v1/providers/attestation"
        Server.says[f"/v1/evidence/{self.id}"] = (200, (VECTORS / "sealed.json").read_bytes())
        status, answer = self.check(feed)
        self.assertEqual((status, found(answer)["evidence/key_named"]["standing"]), (0, "proved"), answer)
        self.assertEqual(Server.asked, ["/v1/providers/attestation", f"/v1/evidence/{self.id}"])
        self.assertEqual(run("feed", feed, "--trust", self.folder / "made_trust.json", "--at", AT)[0], 0)

    def test_nothing_is_followed_and_nothing_is_missing_unnoticed(self):
        feed = self.origin + "/v1/providers/attestation"
        self.assertEqual(self.check(feed)[0], 2, "no evidence there")
        Server.says["/moved"] = (302, feed.encode())
        self.assertEqual(self.check(self.origin + "/moved")[0], 2)
        self.assertEqual(Server.asked[-1], "/moved")
        for nowhere in ("http://192.0.2.1/v1/providers/attestation", "http://127.0.0.1:1/v1/providers/attestation", "/nowhere"):
            self.assertEqual(self.check(nowhere)[0], 2, nowhere)
        Server.says[f"/v1/evidence/{self.id}"] = (200, b"{" + b" " * (2 << 20))
        self.assertEqual(self.check(feed)[0], 2, "more than is read")


class Program(unittest.TestCase):
    def test_is_short_enough_to_be_read(self):
        self.assertLess(len((HERE / "response.py").read_text(encoding="utf-8").splitlines()), 300)

    def test_a_wrong_command_line(self):
        for words in ((), ("feed",), ("response", "--headers", "h", "--body", "b"), ("bundle", "x"), ("feed", "x", "--at", "noon")):
            self.assertEqual(run(*words)[0], 2)


if __name__ == "__main__":
    unittest.main()
