"""verify.py against tests/vectors/verify, and against one changed byte. Run it from the root of the repository:

    /usr/bin/python3 -m unittest docs/verify/test_verify.py
"""
import contextlib
import copy
import importlib.util
import io
import json
import sys
import tempfile
import unittest
import warnings
from base64 import b64decode
from pathlib import Path

HERE = Path(__file__).resolve().parent
VECTORS = HERE.parents[1] / "tests" / "vectors" / "verify"
AT = "2026-09-20T12:00:30Z"
sys.dont_write_bytecode = True
sys.path.insert(0, str(HERE))
SPEC = importlib.util.spec_from_file_location("verify", HERE / "verify.py")
verify = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(verify)

# What nothing signs in the bundle of the fixture, whose result has no seal. Of the two times that are looked at, the
# seconds are: they stay within what is allowed.
UNSEALED_IN_THE_FIXTURE = {
    "/profile", "/generated_at", "/subject_opening/definition", "/challenge/received_at", "/security_info/command_uuid",
    "/security_info/sent_at", "/security_info/observed_at", "/security_info/assurance", "/mda/command_uuid",
    "/mda/observed_at",
}


def run(*arguments):
    """The exit status and the answer, as a shell sees them."""
    out = io.StringIO()
    sys.argv = ["verify.py", *map(str, arguments)]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        try:
            verify.main()
        except SystemExit as end:
            return end.code, json.loads(out.getvalue() or "null")
    raise AssertionError("it ended without a status")


def load(name):
    return json.loads((VECTORS / name).read_text(encoding="utf-8"))


def place(value, pointer):
    """What holds the last name of a JSON pointer (RFC 6901), and that name."""
    names = [name.replace("~1", "/").replace("~0", "~") for name in pointer[1:].split("/")]
    for name in names[:-1]:
        value = value[int(name) if isinstance(value, list) else name]
    return value, int(names[-1]) if isinstance(value, list) else names[-1]


def edited(data, edits):
    """The bytes of a file after the edits of a case, in their order."""
    for edit in edits:
        if "raw" in edit:
            raw = edit["raw"]
            new = b64decode(raw["replace_b64"]) if "replace_b64" in raw else raw["replace"].encode()
            assert raw["find"].encode() in data, f"{raw['find']} is not there"
            data = data.replace(raw["find"].encode(), new * raw.get("times", 1), 1)
            continue
        value = json.loads(data)
        for pointer, new in edit.get("set", {}).items():
            holder, name = place(value, pointer)
            holder[name] = new
        for pointer in edit.get("remove", []):
            holder, name = place(value, pointer)
            del holder[name]
        data = json.dumps(value, ensure_ascii=False).encode()
    return data


def leaves(value, pointer=""):
    """Every text, number and flag, with where it stands."""
    if isinstance(value, (dict, list)):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, f"{pointer}/{str(name).replace('~', '~0').replace('/', '~1')}")
    else:
        yield pointer, value


def changes(text):
    """The text with one byte changed: each one of a short text, many of a long one; another letter, another case."""
    for at in sorted({*range(0, len(text), 1 if len(text) < 100 else 29), *range(max(0, len(text) - 4), len(text))}):
        for bit in (1, 0x20):
            yield text[:at] + chr(ord(text[at]) ^ bit) + text[at + 1:]


def refused(bundle, trust, at=AT):
    """Whether a bundle is refused, whatever the status."""
    try:
        claims = verify.judge(json.dumps(bundle, ensure_ascii=False).encode("utf-8", "surrogatepass"), trust, verify.moment(at))
    except Exception:
        return True
    return any(claim["standing"] == "failed" for claim in claims)


def trust_of(name):
    trust = load(name)
    if "jwks_file" in trust:
        trust["jwks"] = load(trust["jwks_file"])
    trust["root_pem"] = (VECTORS / trust["mda_root_pem_file"]).read_bytes()
    return trust


class Table(unittest.TestCase):
    maxDiff = None

    def test_every_case(self):
        cases = load("cases.json")
        self.assertGreater(len(cases), 300)
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            for name in ("mda_test_root.pem", "made_root.pem", "jwks.json"):
                (folder / name).write_bytes((VECTORS / name).read_bytes())
            for case in cases:
                with self.subTest(case["name"]):
                    (folder / "bundle.json").write_bytes(edited((VECTORS / case["bundle"]).read_bytes(), case["edits"]))
                    (folder / "trust.json").write_bytes(edited((VECTORS / case["trust"]).read_bytes(), case["trust_edits"]))
                    status, answer = run("bundle", folder / "bundle.json", "--trust", folder / "trust.json", "--at", case["at"])
                    expect, found = case["expect"], {claim["claim"]: claim for claim in answer["findings"]}
                    self.assertEqual((status, answer["verdict"]), (expect["exit"], expect["verdict"]), answer)
                    standings = {claim: found.get(claim, {"standing": "absent"})["standing"] for claim in expect["claims"]}
                    self.assertEqual(standings, expect["claims"], answer)
                    self.assertEqual({claim: found[claim]["by"] for claim in expect.get("by", {})}, expect.get("by", {}))
                    # The order of the table; a reason for each that failed; and nothing else in it.
                    order = ["form", *verify.CLAIMS]
                    self.assertEqual([claim["claim"] for claim in answer["findings"]], [name for name in order if name in found])
                    failed = [name for name in order if found.get(name, {}).get("standing") == "failed"]
                    self.assertEqual([reason.split(": ")[0] for reason in answer["reasons"]], failed)
                    self.assertEqual(list(answer), ["verdict", "reasons", "findings", "at"])

    def test_every_claim_is_tried(self):
        tried = {(claim, standing) for case in load("cases.json") for claim, standing in case["expect"]["claims"].items()}
        for claim in verify.CLAIMS:
            self.assertIn((claim, "failed"), tried)
            self.assertTrue({(claim, "proved"), (claim, "asserted")} & tried, claim)


class OneByte(unittest.TestCase):
    def test_nothing_in_a_sealed_bundle(self):
        bundle, trust = load("sealed.json"), trust_of("made_trust.json")
        self.assertFalse(refused(bundle, trust))
        self.assertEqual(self.accepted(bundle, trust), set())

    def test_only_what_is_listed_in_the_fixture(self):
        bundle, trust = load("bundle.json"), trust_of("trust.json")
        self.assertFalse(refused(bundle, trust))
        self.assertEqual(self.accepted(bundle, trust), UNSEALED_IN_THE_FIXTURE)

    def accepted(self, bundle, trust):
        """Where a change went unnoticed."""
        accepted = set()
        for pointer, value in leaves(bundle):
            news = changes(value) if isinstance(value, str) else [not value] if isinstance(value, bool) else [value + 1]
            for new in news:
                other = copy.deepcopy(bundle)
                holder, name = place(other, pointer)
                holder[name] = new
                if not refused(other, trust):
                    accepted.add(pointer)
        # A flag that nobody asks for is the service's word.
        return accepted - {f"/security_info/fields/{name}" for name in ("AuthenticatedRootVolumeEnabled", "FDE_Enabled")}

    def test_no_name_in_a_sealed_bundle(self):
        bundle, trust = load("sealed.json"), trust_of("made_trust.json")
        paths, renamed = {pointer for pointer, _ in leaves(bundle)}, 0
        paths |= {pointer.rsplit("/", steps)[0] for pointer in paths for steps in range(1, pointer.count("/"))}
        for pointer in paths:
            name = place(bundle, pointer)[1]
            for new in changes(name) if isinstance(name, str) else ():
                other = copy.deepcopy(bundle)
                holder = place(other, pointer)[0]
                holder[new] = holder.pop(name)
                self.assertTrue(refused(other, trust), f"{pointer} as {new}")
                renamed += 1
        self.assertGreater(renamed, 500)

    def test_no_byte_of_a_certificate(self):
        """Also of those around what its signature covers: nothing seals them in the fixture."""
        warnings.simplefilter("ignore")  # what the library says of some of them
        bundle, trust = load("bundle.json"), trust_of("trust.json")
        for number, text in enumerate(bundle["mda"]["chain_b64"]):
            der = b64decode(text)
            for at in range(len(der)):
                for bit in (1, 0x80) if at > len(der) - 130 else (1 << at % 8,):
                    changed = verify.base64.b64encode(der[:at] + bytes([der[at] ^ bit]) + der[at + 1:]).decode()
                    bundle["mda"]["chain_b64"][number] = changed
                    with self.assertRaises(Exception, msg=f"certificate {number} byte {at}"):
                        verify.Bundle(bundle, trust, verify.moment(AT)).apple(bundle["mda"])
            bundle["mda"]["chain_b64"][number] = text


class Hostile(unittest.TestCase):
    """Nothing is answered with a traceback, and nothing that is broken holds."""

    def test_another_type_everywhere(self):
        bundle, trust = load("sealed.json"), trust_of("made_trust.json")
        for pointer, _ in [*leaves(bundle), *((f"/{name}", None) for name in bundle), ("/mda/nonce/inputs", None)]:
            for new in (None, True, 0, -1, 2**70, "", "x", [], [[]], {}, {"x": 1}):
                other = copy.deepcopy(bundle)
                holder, name = place(other, pointer)
                if type(holder[name]) is type(new) and holder[name] == new:
                    continue
                holder[name] = new
                self.assertTrue(refused(other, trust), f"{pointer} {new!r}")

    def test_a_trust_file_of_other_types(self):
        bundle, trust = (VECTORS / "sealed.json").read_bytes(), load("made_trust.json")
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "made_root.pem").write_bytes((VECTORS / "made_root.pem").read_bytes())
            (Path(folder) / "bundle.json").write_bytes(bundle)
            for name in trust:
                for new in (None, True, 7, "x", [], {}):
                    (Path(folder) / "trust.json").write_text(json.dumps({**trust, name: new}))
                    status, answer = run("bundle", Path(folder) / "bundle.json", "--trust", Path(folder) / "trust.json", "--at", AT)
                    self.assertIn((status, answer["verdict"]), [(1, "refused"), (2, "refused")], f"{name} {new!r}")

    def test_what_cannot_be_opened(self):
        bundle, trust = VECTORS / "bundle.json", VECTORS / "trust.json"
        with tempfile.TemporaryDirectory() as folder:
            no_jwks = Path(folder) / "trust.json"
            no_jwks.write_bytes(trust.read_bytes())
            for one, other in ((VECTORS / "nowhere.json", trust), (bundle, VECTORS / "nowhere.json"), (bundle, no_jwks),
                               (VECTORS, trust), (bundle, VECTORS / "made_root.pem"), (VECTORS / "made_root.pem", trust)):
                status, answer = run("bundle", one, "--trust", other, "--at", AT)
                self.assertEqual((status, answer["verdict"]), (2, "refused"), f"{one} {other}")

    def test_a_wrong_command_line(self):
        bundle, trust = VECTORS / "bundle.json", VECTORS / "trust.json"
        for words in ((), ("bundle", bundle), ("blob", bundle, "--trust", trust), ("bundle", bundle, "--trust", trust, "--at", "noon")):
            self.assertEqual(run(*words)[0], 2)


class Program(unittest.TestCase):
    def test_is_short_enough_to_be_read(self):
        self.assertLess(len((HERE / "verify.py").read_text(encoding="utf-8").splitlines()), 300)

    def test_brings_apples_root(self):
        der = verify.ssl.PEM_cert_to_DER_cert((HERE / "apple_root.pem").read_text())
        self.assertEqual(verify.sha256(der).hex(), verify.APPLE_ROOT_SHA256)

    def test_knows_the_canonical_statuses(self):
        """Those of the provider's own tests, under tests/fixtures."""
        key = verify.ec.generate_private_key(verify.ec.SECP256R1())
        fixture = HERE.parents[1] / "tests" / "fixtures" / "provider" / "status_canonical_vectors.json"
        tried = 0
        for vector in json.loads(fixture.read_text(encoding="utf-8"))["vectors"]:
            raw = vector["canonical"].encode()
            bundle = verify.Bundle.__new__(verify.Bundle)
            bundle.key = key.public_key()
            said = json.loads(raw)
            part = {"nonce": said["nonce"], "timestamp": said["timestamp"], "status_raw_b64": verify.base64.b64encode(raw).decode(),
                    "status_signature_b64": verify.base64.b64encode(key.sign(raw, verify.ec.ECDSA(verify.hashes.SHA256()))).decode()}
            if said.get("sip_enabled") and said.get("secure_boot_enabled", True):
                self.assertIsNone(bundle.status(part), vector["name"])
            else:  # canonical, but not good: the last thing that is looked at
                with self.assertRaisesRegex((ValueError, KeyError), "SIP or Secure Boot is off|sip_enabled"):
                    bundle.status(part)
            tried += 1
        self.assertGreaterEqual(tried, 5)


if __name__ == "__main__":
    unittest.main()
