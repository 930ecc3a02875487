#!/usr/bin/env python3
"""Checks what attestd publishes, without trusting attestd or whoever carried it.

    verify.py bundle FILE --trust TRUST.json [--at 2026-09-20T12:00:00Z]

The rules, the trust file and what the answer means are in docs/verify.md; each method of `Bundle` is a row of its table.
Needs Python 3.11, `cryptography` 38, and texts.py, policy.py and apple_root.pem beside it; reads only the files it is given and asks nobody.
"""
import argparse, base64, hmac, json, re, ssl, sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, utils
import policy
from texts import b64, b64url, canonical, moment, need, read_json, sha256

MOST_BYTES, MINUTE = 1 << 20, timedelta(minutes=1)
CLAIMS = {  # the part or parts that a claim is about, and who proves it
    "subject": ("se_public_key", "arithmetic"), "registration": ("registration", "se_key"),
    "challenge": ("challenge", "se_key"), "status": ("challenge", "se_key"), "apple": ("mda", None), "key_named": ("mda", None),
    "apple_posture": ("mda", None), "security_info": ("security_info", None), "ear": ("ear", "service"),
    "sealed": ("ear", "service"), "policy": ("policy", "arithmetic"), "judgement": ("policy", "service"),
    "log": ("log_entry_b64 tlog_proof", "log"), "release": ("release", "log")}
MEMBERS = {name for parts, _ in CLAIMS.values() for name in parts.split()} | {
    "bundle_version", "profile", "generated_at", "disclosure", "residence_proved", "subject", "subject_opening"}
STATUS = {**dict.fromkeys("hypervisor_active rdma_disabled secure_boot_enabled sip_enabled".split(), bool),
          **dict.fromkeys("nonce timestamp active_model_hash binary_hash grpc_binary_hash image_bridge_hash python_hash "
                          "runtime_hash".split(), str), "model_hashes": dict, "template_hashes": dict}
APPLE_ROOT_SHA256 = "ccf59ef8fcb3017d97f8b5fa6fa90e7a3f9283f76b55ac6cf6eda8b8b949f05b"

def point(raw):
    raw = b"\x04" + raw if len(raw) == 64 else raw
    need(len(raw) == 65 and raw[0] == 4, "no key of 64 bytes, nor of 65 that begin with 04")
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)
def check(key, signature, message):
    need(utils.encode_dss_signature(*utils.decode_dss_signature(signature)) == signature, "a signature that is not DER")
    key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
def check_certificate(depth, der, cert, issuer, at):  # 0 is the leaf; the last is its own issuer
    key, known = cert.public_key(), (x509.BasicConstraints, x509.KeyUsage)
    basic, usage = map({type(e.value): e.value for e in cert.extensions}.get, known)
    need(isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp384r1", "a key that is not P-384")
    need(cert.issuer == issuer.subject, "a certificate of another issuer")
    # What stands around the signature is not signed: no byte of it may be another.
    ecdsa_sha384 = bytes.fromhex("300a06082a8648ce3d04030303") + bytes([len(cert.signature) + 1, 0])
    need(der.endswith(ecdsa_sha384 + cert.signature), "a signature that is not ECDSA with SHA-384")
    issuer.public_key().verify(cert.signature, cert.tbs_certificate_bytes, ec.ECDSA(hashes.SHA384()))
    first, last = (time.replace(tzinfo=timezone.utc) for time in (cert.not_valid_before, cert.not_valid_after))
    need(first <= at <= last, "a certificate that is not valid at this time")
    need(all(type(e.value) in known for e in cert.extensions if e.critical), "a critical extension that is not known")
    need(bool(basic and basic.ca) == (depth > 0), "an authority that is none, or a leaf that is one")
    need(depth == 0 or usage is None or usage.key_cert_sign, "an authority that may not sign certificates")
    need(depth == 0 or basic.path_length is None or basic.path_length >= depth - 1, "a path that is too long")
def nonce(scheme, inputs, text):  # of these inputs and this text of a key
    need(inputs.get("se_public_key", "" if scheme == "transcript-v1" else text) == text, "made for another key")
    if scheme == "legacy-se-sha256":
        return sha256(text.encode())
    if scheme == "transcript-v1":
        millis = round(moment(inputs["minted_at"]).timestamp() * 1000)
        names = [inputs[name] for name in ("server_id", "device_id", "command_uuid")]
        parts = [part.encode() for part in ("attestd-nonce-transcript-v1", *names, str(millis), text)]
        return sha256(*(len(part).to_bytes(4, "big") + part for part in parts))
    need(scheme == "beacon-v2" and type(inputs["size"]) is int, "a nonce scheme that is not known")
    origin, size, root = inputs["origin"].encode(), inputs["size"].to_bytes(8, "big"), b64(inputs["root"], 32)
    return sha256(b"darkbloom-mda-nonce-v2\0", len(origin).to_bytes(2, "big"), origin, size, root, text.encode())
def tier(value):
    need(type(value) is int and -128 <= value <= 127, "a value that is no signed byte")
    return 0 if -1 <= value <= 1 else 1 if -32 <= value <= 31 else 2 if -96 <= value <= 95 else 3
def no_better(status, tiers):
    """`none` says nothing; `affirming` needs something affirming and nothing worse; the others may be worse."""
    rank, worst = ("none", "affirming", "warning", "contraindicated").index(status), max(tiers, default=0)
    need(rank in (0, worst) or rank > max(worst, 1), f"{status} is better than what it is made of")
    return rank
def root_of(node, index, size, others, whole=True):
    """The root of a tree of this size, from one of its leaves and what stands beside its way up (RFC 9162 2.1).

    With `whole` false the root it had when that leaf was the last: what stands behind the leaf was not there."""
    if size < 2:
        return need(index < size and not others, "a proof of another length") or node
    half = 1 << ((size - 1).bit_length() - 1)
    if index < half:
        before = root_of(node, index, half, others[:-1], whole)
        return sha256(b"\1", before, others[-1]) if whole else before
    return sha256(b"\1", others[-1], root_of(node, index - half, size - half, others[:-1], whole))
def signed_by(vkey, kind, signatures, body):
    """Whether one of a note's signatures is this key's, a log's (kind 1) or a witness's (kind 4, which signs a time along)."""
    name, key_id, key = vkey.split("+", 2)
    key = b64(key, 33)
    need(key[0] == kind and sha256(name.encode(), b"\n", key)[:4].hex() == key_id, "a vkey that contradicts itself")
    mine = [raw[4:] for signer, raw in signatures if signer == name and raw[:4].hex() == key_id]
    for raw in mine:
        head = f"cosignature/v1\ntime {int.from_bytes(raw[:8], 'big')}\n" if kind == 4 else ""
        ed25519.Ed25519PublicKey.from_public_bytes(key[1:]).verify(raw[8:] if head else raw, (head + body).encode())
    return bool(mine)

class Bundle:
    """A bundle of good form. A claim is given its part, and is proved unless it raises, or returns another word."""
    def __init__(self, parts, trust, at):
        need(canonical(parts.get("bundle_version")) == b"1", "bundle_version is not 1")
        need(parts.keys() <= MEMBERS, "a member that is not known")
        need(isinstance(parts["subject"], str), "subject is no text")
        self.parts, self.trust, self.at, self.text = parts, trust, at, parts["se_public_key"]
        self.key, self.made = point(b64(self.text)), moment(parts["generated_at"])
        self.blob = None if "registration" in parts else {}  # as long as it was not read
        self.leaf, self.anchor, self.said, self.result, self.head_then = None, None, {}, None, None
    def subject(self, _):
        if "subject_opening" not in self.parts:
            return "asserted"
        made = hmac.digest(b64(self.parts["subject_opening"]["salt_b64"]), self.text.encode(), "sha256")
        need(b64url(self.parts["subject"]) == made, "the opening gives another subject")
    def registration(self, part):
        raw = b64(part["attestation_raw_b64"])
        self.blob = read_json(raw)
        check(self.key, b64(part["signature_b64"]), raw)
        need(point(b64(self.blob["publicKey"])).public_numbers() == self.key.public_numbers(), "publicKey is another")
        need(self.blob["encryptionPublicKey"] == part["encryption_public_key"], "encryptionPublicKey is another")
        for name in ("sipEnabled", "secureBootEnabled", "secureEnclaveAvailable"):
            need(self.blob[name] is True, f"{name} is not true")
    def challenge(self, part):
        b64(part["nonce"], 32)
        check(self.key, b64(part["signature_b64"]), (part["nonce"] + part["timestamp"]).encode())
        asked = moment(part["timestamp"])
        need(moment(part["received_at"]) >= asked - MINUTE, "answered before it was asked")
        need(self.made - 16 * MINUTE <= asked <= self.made + MINUTE, "not of the time of the bundle")
    def status(self, part):
        if not part.keys() & {"status_raw_b64", "status_signature_b64"}:
            return "absent"
        raw = b64(part["status_raw_b64"])
        check(self.key, b64(part["status_signature_b64"]), raw)
        said = read_json(raw)
        kept = {name: value for name, value in said.items() if name in STATUS and value not in ("", {})}
        need(all(type(value) is STATUS[name] for name, value in kept.items()), "a value of another type")
        need(all(type(text) is str for name in ("model_hashes", "template_hashes") for text in kept.get(name, {}).values()),
             "a hash that is no text")
        form = canonical(kept).decode().replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").encode()
        need(form == raw, "not the canonical form of what it says")
        need((said["nonce"], said["timestamp"]) == (part["nonce"], part["timestamp"]), "to another challenge")
        need(said["sip_enabled"] and said.get("secure_boot_enabled", True), "SIP or Secure Boot is off")
    def apple(self, part):
        if "chain_b64" not in part:
            need(re.fullmatch("[0-9a-f]{64}", part["chain_sha256"]), "chain_sha256 is no SHA-256")
            self.anchor = "nobody"
            return "asserted"
        need(type(part["chain_b64"]) is list and 2 <= len(part["chain_b64"]) <= 3, "not two or three certificates")
        chain = [b64(text) for text in part["chain_b64"]]
        pinned = self.trust.get("mda_root_sha256", APPLE_ROOT_SHA256).lower()
        if sha256(chain[-1]).hex() != pinned:
            pem = self.trust.get("root_pem") or read(Path(__file__).with_name("apple_root.pem"))
            chain.append(ssl.PEM_cert_to_DER_cert(pem.decode()))
        need(len(chain) == 3 and sha256(chain[-1]).hex() == pinned, "not a leaf, one authority and the pinned root")
        path = [x509.load_der_x509_certificate(der) for der in chain]
        for depth, (der, cert, issuer) in enumerate(zip(chain, path, path[1:] + path[-1:])):
            check_certificate(depth, der, cert, issuer, self.at)
        self.leaf, self.anchor = path[0], "apple" if pinned == APPLE_ROOT_SHA256 else "custom"
    def extension(self, suffix):
        need(self.leaf, "rests on apple")  # the raw bytes of one of its extensions, never unwrapped
        oid = x509.ObjectIdentifier("1.2.840.113635.100.8." + suffix)
        return self.leaf.extensions.get_extension_for_oid(oid).value.value
    def key_named(self, part):
        scheme, inputs = part["nonce"]["scheme"], part["nonce"].get("inputs", {})
        need(self.extension("11.1") == nonce(scheme, inputs, self.text), "the freshness code is another")
        if scheme == "beacon-v2":
            entry, head = self.logged(part["nonce"]), (inputs["origin"], inputs["size"], b64(inputs["root"], 32))
            need(self.head_then == head, "the log did not have the head of the nonce")
            need(type(entry["iat"]) is int and entry["iat"] == moment(inputs["head_at"]).timestamp(), "the head is of another time")
    def apple_posture(self, _):
        for suffix, good in (("13.1", b"\x02\x01\0"), ("13.2", b"Full Security"), ("13.3", b"\x02\x01\0")):
            need(self.extension(suffix) == good, f"{suffix} is {self.extension(suffix)!r}")
        serial = self.extension("9.1")
        need(serial and serial == self.blob.get("serialNumber", serial.decode()).encode(), "9.1 is another serial number")
    def security_info(self, part):
        need(part["fields"]["SystemIntegrityProtectionEnabled"] is True, "SIP is not on")
        need(part["fields"]["SecureBoot.SecureBootLevel"] == "full", "Secure Boot is not full")
        return "asserted"
    def ear(self, part):
        head, body, signature = part.split(".")
        header, said, raw = read_json(b64url(head)), read_json(b64url(body)), b64url(signature, 64)
        self.said, iat, exp, subject = said, said["iat"], said["exp"], self.parts["subject"]
        need((header["alg"], header["typ"]) == ("ES256", "eat+jwt") and "crit" not in header, "not such a token")
        key = {key.get("kid"): key for key in self.trust["jwks"]["keys"]}[header["kid"]]
        need((key["kty"], key["crv"], key.get("alg", "ES256")) == ("EC", "P-256", "ES256"), "a key of another kind")
        pair = utils.encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
        check(point(b64url(key["x"], 32) + b64url(key["y"], 32)), pair, f"{head}.{body}".encode())
        need(key.get("revoked_at") is None and key.get("nbf", iat) <= iat <= key.get("exp", iat), "a key not in use then")
        need(type(iat) is int and type(exp) is int, "a time that is no integer")
        need(iat <= (self.at + MINUTE).timestamp() and self.at.timestamp() < exp, "of a time to come, or expired")
        need(said["eat_profile"] == "tag:ietf.org,2026:rats/ear#04" and said["submods"], "another profile, or no submodule")
        need(said["iss"] == self.trust["issuer"] and said.get("sub", subject) == subject, "of or about somebody else")
        ranks = [no_better(module["ear_status"], map(tier, module["ear_trustworthiness_vector"].values()))
                 for module in said["submods"].values()]
        no_better(said.get("ear_status", "none"), ranks)
        self.result = said
    def sealed(self, _):
        seal = self.said.get("attestd", {})
        if "evidence_sha256" not in seal:
            return "absent"
        rest = {name: part for name, part in self.parts.items() if name not in ("ear", "log_entry_b64", "tlog_proof")}
        need(self.result and seal["evidence_sha256"] == sha256(canonical(rest)).hex(), "rests on ear, or is not what was sealed")
    def policy(self, part):
        need(self.result, "rests on ear")
        digest = sha256(part["text"].encode())
        ends = ("/" + digest.hex(), "#sha256-" + base64.urlsafe_b64encode(digest).decode().rstrip("="))
        names = [name for module in self.result["submods"].values() for name in module["ear_appraisal_policy_ids"]]
        need(any(name.endswith(ends) for name in names), "the result names another policy")

    def judgement(self, part):
        rules = self.result and policy.to_allow(part["text"], self.result)
        if not rules:
            return "absent"
        named = lambda: self.key_named(self.parts["mda"])
        policy.allows(rules, self.result, self.parts.get("security_info"), self.leaf, named)
        return "asserted"

    def logged(self, part):
        """The entry that a part brings, which is in the log that is trusted."""
        raw, proof, number, line = b64(part["log_entry_b64"]), part["tlog_proof"], "(0|[1-9][0-9]{0,17})", r"(\S+)"
        form = (rf"c2sp\.org/tlog-proof@v1\n(?:extra \S+\n)?index {number}\n((?:\S+\n)*)\n"
                rf"({line}\n{number}\n{line}\n(?:[^\n]+\n)*)\n((?:— \S+ \S+\n)+)")
        index, others, body, origin, size, root, lines = re.fullmatch(form, proof).groups()
        way = sha256(b"\0", raw), int(index), int(size), [b64(other, 32) for other in others.split()]
        need(root_of(*way) == b64(root, 32), "the proof leads to another root")
        self.head_then = origin, int(index) + 1, root_of(*way, False)
        notes = [(name, b64(text)) for _, name, text in map(str.split, lines.splitlines())]
        log, witnesses, quorum = self.trust["log_vkey"], self.trust.get("witness_vkeys", []), self.trust["witness_quorum"]
        need(origin == log.split("+")[0] and signed_by(log, 1, notes, body), "not signed by the log")
        count = len({vkey.split("+")[0] for vkey in witnesses if signed_by(vkey, 4, notes, body)})
        need(type(quorum) is int and count >= quorum, f"{count} witnesses of {quorum}")
        return read_json(raw)
    def log(self, _):
        entry, names = self.logged(self.parts), (sha256(self.parts["ear"].encode()).hex(), self.parts["subject"])
        need(canonical([entry["type"], entry["v"]]) == b'["posture",1]', "the entry is of another kind")
        need((entry["ear_sha256"], entry["subject"]) == names, "the entry names another result or subject")
    def release(self, part):
        entry, program, answer = self.logged(part), part["binary_hash"], self.parts.get("challenge", {})
        need(canonical([entry["type"], entry["v"], entry["revoked"]]) == b'["release",1,false]', "the entry registers no release")
        need(all(type(part[name]) is str and entry[name] == part[name] for name in ("version", "platform", "binary_hash")),
             "the entry is of another release")
        said = read_json(b64(answer["status_raw_b64"])) if "status_raw_b64" in answer else {}
        need(self.blob.get("binaryHash") in (None, "", program) and said.get("binary_hash", program) == program,
             "the provider says that it runs another program")

def read(path):
    return open(path, "rb").read(MOST_BYTES + 1)
def failed(claim, error):
    why = f"{'' if type(error) is ValueError else type(error).__name__} {error}".strip()
    return {"claim": claim, "standing": "failed", "detail": why[:200]}
def judge(data, trust, at):
    """The claims that a bundle makes, in the order of the table. Whatever goes wrong in one, that one failed."""
    try:
        need(len(data) <= MOST_BYTES, f"more than {MOST_BYTES} bytes")
        bundle, claims = Bundle(read_json(data), trust, at), []
    except Exception as error:
        return [failed("form", error)]
    for claim, (parts, by) in CLAIMS.items():
        given = [bundle.parts[name] for name in parts.split() if name in bundle.parts]
        if not given or (parts, bundle.anchor) == ("mda", "nobody"):
            continue
        try:
            word = getattr(bundle, claim)(given[0]) or "proved"
            by = "service" if word == "asserted" else by or bundle.anchor
            claims += [{"claim": claim, "standing": word, "by": by}] if word != "absent" else []
        except Exception as error:
            claims.append(failed(claim, error))
    return claims

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["bundle"])
    parser.add_argument("file")
    parser.add_argument("--trust", required=True)
    parser.add_argument("--at", type=moment, default=datetime.now(timezone.utc))
    args = parser.parse_args()
    try:
        trust, beside, data = read_json(read(args.trust)), Path(args.trust).parent, read(args.file)
        trust |= {"jwks": read_json(read(beside / trust["jwks_file"]))} if "jwks_file" in trust else {}
        trust |= {"root_pem": read(beside / trust["mda_root_pem_file"])} if "mda_root_pem_file" in trust else {}
        need(data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["), "no JSON")
        claims, end = judge(data, trust, args.at), 1
    except Exception as error:
        claims, end = [failed("form", error)], 2
    reasons = [f"{claim['claim']}: {claim['detail']}" for claim in claims if "detail" in claim]
    print(json.dumps({"verdict": "refused" if reasons else "verified", "reasons": reasons, "findings": claims,
                      "at": args.at.isoformat().replace("+00:00", "Z")}, indent=2))
    sys.exit(end if reasons else 0)

if __name__ == "__main__":
    main()
